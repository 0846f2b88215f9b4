"""Pictures below the alerts' messages in Slack: what the agent did in the hour before.

They are drawn and posted by the console's process, which has the event store, as deliveries of a
channel of their own: no message of an alert ever waits for one. Posted at least once.
"""

from __future__ import annotations

from typing import Any, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError

from monitor.alerting.slack import DeliveryError, SlackClient
from monitor.alerting.slack_text import shown
from monitor.dashboards.activity import MOST_SECONDS, activity_chart, activity_query
from monitor.dashboards.png import DrawingError, draw
from monitor.settings import SlackSettings
from monitor.store.fault import reason
from monitor.store.queries import Readers
from monitor.store.state import Alert, Delivery, SlackThread, State

SECONDS = 12.0
"""How long drawing may take; with the query and three calls to Slack it ends before the lease does."""

REMEDY = "give the Slack app the scope files:write, or set slack.pictures = false"


class Drawing(Protocol):
    """Makes an alert's picture."""

    def __call__(self, alert: Alert) -> bytes | None:
        """The PNG; None where there is nothing to draw. Raises DeliveryError."""
        ...


class SlackPictures:
    """Sends ``picture``: a PNG in the thread of the alert's message."""

    def __init__(self, state: State, settings: SlackSettings, drawing: Drawing) -> None:
        self._state = state
        self._slack = SlackClient(settings)
        self._drawing = drawing

    def send(self, delivery: Delivery) -> None:
        """Draw and post. Raises DeliveryError."""
        with self._state.read() as session:
            alert = session.get(Alert, delivery.alert_id)
            thread = session.get(SlackThread, delivery.alert_id)
        if alert is None:
            raise DeliveryError(f"alert {delivery.alert_id} is gone", hopeless=True)
        if thread is None:
            raise DeliveryError("the alert's message is not posted yet")
        if (picture := self._drawing(alert)) is not None:
            self._post(alert, thread, picture)

    def _post(self, alert: Alert, thread: SlackThread, picture: bytes) -> None:
        title = f"Activity of {shown(alert.agent_id, 100)} in the hour before"
        try:
            self._slack.call(
                self._slack.web.files_upload_v2,
                channel=thread.channel,
                thread_ts=thread.ts,
                filename=f"{alert.id}.png",
                content=picture,
                title=title,
                alt_txt=title,
            )
        except DeliveryError as error:
            if "missing_scope" not in str(error):
                raise
            raise DeliveryError(f"{error}; {REMEDY}", hopeless=True) from None


def drawn_from(readers: Readers) -> Drawing:
    """Pictures of what the event store holds."""

    def drawing(alert: Alert) -> bytes | None:
        sql, values = activity_query(alert)
        try:
            with readers.alone(MOST_SECONDS) as client:
                rows: list[Any] = list(client.query(sql, parameters=values).result_rows)
        except ClickHouseError as error:
            raise DeliveryError(f"no picture: {reason(error)}") from None
        if not rows:
            return None
        try:
            return draw(activity_chart(alert, rows), SECONDS)
        except DrawingError as error:
            raise DeliveryError(f"no picture: {error}") from None

    return drawing
