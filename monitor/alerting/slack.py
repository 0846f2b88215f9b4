"""Alerts in a Slack channel: one message an alert, edited as it moves, and a thread below it."""

from __future__ import annotations

import http.client
import logging
import uuid
from collections.abc import Callable
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from monitor.alerting.deliveries import head_id
from monitor.alerting.slack_text import head, reply, shown
from monitor.settings import SlackSettings
from monitor.store.state import Alert, Delivery, SlackThread, State

TIMEOUT_SECONDS = 10
RATE_LIMIT_SECONDS = 30.0
"""How long to wait where Slack says 429 without saying how long."""

HOPELESS = frozenset(
    {"invalid_arguments", "invalid_blocks", "invalid_blocks_format", "msg_too_long", "no_text"}
)
"""Errors of the message itself. A missing channel or scope is not among them: people repair those."""

PLAIN = {"parse": "none", "link_names": False, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


class DeliveryError(Exception):
    """A message was not delivered. ``retry_after`` (seconds) holds for all messages of the channel."""

    def __init__(self, message: str, retry_after: float | None = None, hopeless: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.hopeless = hopeless


class SlackClient:
    """Slack's API; what goes wrong is a DeliveryError."""

    def __init__(self, settings: SlackSettings) -> None:
        quiet = logging.getLogger("slack_sdk")
        # below this, the library would log the messages that it sends
        quiet.setLevel(logging.WARNING)
        self.web = WebClient(
            token=settings.token.get_secret_value() if settings.token else None,
            base_url=settings.base_url,
            timeout=TIMEOUT_SECONDS,
            logger=quiet,
            # the outbox retries, and remembers it
            retry_handlers=[],
        )

    def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call one of its methods. Raises DeliveryError."""
        try:
            return method(**arguments)
        except SlackApiError as error:
            raise _refused(error) from None
        except SlackClientError as error:
            raise DeliveryError(f"{error}; check slack.base_url", hopeless=True) from None
        except (URLError, OSError, http.client.HTTPException, ValueError) as error:
            raise DeliveryError(f"Slack cannot be reached: {type(error).__name__}: {error}") from None


class SlackChannel:
    """Sends ``alert`` (the alert's message) and ``update`` (an edit of it, and a reply in its thread)."""

    def __init__(self, state: State, settings: SlackSettings, console_url: str) -> None:
        self._state = state
        self._channel = settings.channel
        self._console_url = console_url.rstrip("/")
        self._slack = SlackClient(settings)

    def send(self, delivery: Delivery) -> None:
        """Deliver. Raises DeliveryError; sent again after a crash, it repeats as little as Slack allows."""
        with self._state.read() as session:
            alert = session.get(Alert, delivery.alert_id)
            thread = session.get(SlackThread, delivery.alert_id)
        if alert is None:
            raise DeliveryError(f"alert {delivery.alert_id} is gone", hopeless=True)
        if thread is None:
            thread = self._post_head(alert)
        elif delivery.kind == "update":
            thread = self._edit_head(alert, thread)
        if delivery.kind == "update":
            self._post(delivery.id, thread.channel, thread_ts=thread.ts, **reply(delivery.payload["text"]))

    def _post_head(self, alert: Alert) -> SlackThread:
        answer = self._post(head_id(alert.id), self._channel, **head(alert, self._console_url))
        thread = SlackThread(alert_id=alert.id, channel=answer["channel"], ts=answer["ts"])
        with self._state.write() as session:
            session.merge(thread)
        return thread

    def _edit_head(self, alert: Alert, thread: SlackThread) -> SlackThread:
        try:
            self._slack.call(
                self._slack.web.chat_update,
                channel=thread.channel,
                ts=thread.ts,
                parse="none",
                link_names=False,
                **head(alert, self._console_url),
            )
        except DeliveryError as error:
            if "message_not_found" not in str(error):
                raise
            # somebody deleted it; an open alert must not disappear with it
            return self._post_head(alert)
        return thread

    def _post(self, identity: str, channel: str, **message: Any) -> Any:
        """``client_msg_id`` lets Slack recognise a message that it already has."""
        return self._slack.call(
            self._slack.web.chat_postMessage,
            channel=channel,
            client_msg_id=str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
            **PLAIN,
            **message,
        )


def _refused(error: SlackApiError) -> DeliveryError:
    answer = error.response
    word = shown(str(answer.get("error")), 200)
    said = f"Slack answered {answer.status_code}: {word}"
    if answer.status_code == 429 or word == "ratelimited":
        headers = {name.lower(): value for name, value in answer.headers.items()}
        try:
            return DeliveryError(said, retry_after=float(headers["retry-after"]))
        except (KeyError, ValueError):
            return DeliveryError(said, retry_after=RATE_LIMIT_SECONDS)
    return DeliveryError(said, hopeless=word in HOPELESS)
