"""The outbox: sends waiting messages from a thread of its own, so that no loop waits for a network.

At least once: a message is claimed for a while, sent, and then marked. One that a killed
process had claimed is sent again once its lease is over.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from typing import Protocol

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import aliased

from monitor.alerting.deliveries import SLACK
from monitor.alerting.slack import DeliveryError, SlackChannel
from monitor.settings import Settings
from monitor.store.state import Delivery, State, now
from monitor.telemetry import logger

MAX_ATTEMPTS = 20
"""With the delays below: given up after about an hour."""

MAX_DELAY_SECONDS = 300.0
LEASE_SECONDS = 60
"""Longer than three calls to Slack may take."""

POLL_SECONDS = 0.5
"""How late a message may leave that another process has enqueued."""

LONGEST_ERROR = 500
SECOND = 1_000_000


class Channel(Protocol):
    """A way to reach people."""

    def send(self, delivery: Delivery) -> None:
        """Deliver one message. Raises DeliveryError."""
        ...


class Outbox:
    """The worker for some channels. One message at a time, those of one alert in their order."""

    def __init__(self, state: State, channels: Mapping[str, Channel]) -> None:
        self.state = state
        self.channels = channels
        self._paused_until: dict[str, int] = {}
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    @classmethod
    def of_messages(cls, state: State, settings: Settings, console_url: str) -> Outbox:
        """The worker for what alerts say."""
        if settings.slack.token is None:
            return cls(state, {})
        address = settings.console.public_url or console_url
        return cls(state, {SLACK: SlackChannel(state, settings.slack, address)})

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """Look for messages now and not at the next poll."""
        self._awake.set()

    def stop(self, timeout: float = 15.0) -> None:
        """End after the message in hand; what still waits is sent after the next start."""
        self._stopping.set()
        self._awake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._awake.clear()
            try:
                while not self._stopping.is_set() and self.step(now()):
                    pass
            except Exception:
                logger().exception("the outbox failed; messages wait and it goes on")
            self._awake.wait(POLL_SECONDS)

    def step(self, at: int) -> bool:
        """Try one message that is due at ``at`` (microseconds); whether there was one."""
        delivery = self._claim(at)
        if delivery is None:
            return False
        try:
            self.channels[delivery.channel].send(delivery)
        except DeliveryError as error:
            self._failed(delivery, error, at)
        except Exception as error:
            logger().exception("a message could not be sent", delivery=delivery.id)
            self._failed(delivery, DeliveryError(f"{type(error).__name__}, see the log"), at)
        else:
            with self.state.write() as session:
                row = session.get_one(Delivery, delivery.id)
                row.state, row.sent_at, row.last_error = "sent", now(), None
        return True

    def _claim(self, at: int) -> Delivery | None:
        open_channels = [name for name in self.channels if self._paused_until.get(name, 0) <= at]
        query = _due(open_channels, at)
        with self.state.read() as session:
            if session.scalars(query).first() is None:
                return None
        with self.state.write() as session:
            delivery = session.scalars(query).first()
            if delivery is not None:
                delivery.attempts += 1
                delivery.next_attempt_at = at + LEASE_SECONDS * SECOND
            return delivery

    def _failed(self, delivery: Delivery, error: DeliveryError, at: int) -> None:
        wait = max(delay(delivery.id, delivery.attempts), error.retry_after or 0.0)
        if error.retry_after is not None:
            self._paused_until[delivery.channel] = at + int(error.retry_after * SECOND)
        given_up = error.hopeless or delivery.attempts >= MAX_ATTEMPTS
        with self.state.write() as session:
            row = session.get_one(Delivery, delivery.id)
            row.last_error = str(error)[:LONGEST_ERROR]
            row.next_attempt_at = at + int(wait * SECOND)
            row.state = "failed" if given_up else "waiting"
        if given_up:
            logger().error(
                "a message was given up", delivery=delivery.id, alert=delivery.alert_id, why=str(error)
            )


def delay(delivery_id: str, attempts: int) -> float:
    """Return seconds until the next attempt: doubling, capped, and spread by the id."""
    spread = random.Random(f"{delivery_id}:{attempts}").uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return min(MAX_DELAY_SECONDS, 2.0 ** (attempts - 1)) * spread


def _due(channels: list[str], at: int) -> Select[Delivery]:
    """The first message that may go now: none overtakes an earlier one of its alert."""
    earlier = aliased(Delivery)
    overtakes = exists().where(
        earlier.alert_id == Delivery.alert_id,
        earlier.channel == Delivery.channel,
        earlier.state == "waiting",
        earlier.created_at < Delivery.created_at,
    )
    return (
        select(Delivery)
        .where(Delivery.state == "waiting", Delivery.next_attempt_at <= at, Delivery.channel.in_(channels))
        .where(~overtakes)
        .order_by(Delivery.next_attempt_at, Delivery.created_at, Delivery.id)
        .limit(1)
    )
