"""What an endpoint's answer means (KILL-SWITCH, The call). Pure: bytes in, meaning out.

Everything in an answer is text from outside: it is cut, cleaned and never trusted to say
more than the contract lets it say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import msgspec

MAX_TEXT = 500
MAX_POINTS = 50
RETRIED = frozenset({408, 409, 425, 429})
DONE = frozenset({"contained", "confirmed"})
"""Words by which an enforcement point says that it has done its part."""


class Verdict(StrEnum):
    """What to make of an answer."""

    CONFIRMED = "confirmed"
    PARTIAL = "partial"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"
    PENDING = "pending"
    RETRY = "retry"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True)
class Reply:
    """An answer as understood. ``retry_after`` is in seconds, ``location`` as it was sent."""

    verdict: Verdict
    detail: str
    enforcement: list[dict[str, Any]] = field(default_factory=list)
    retry_after: float | None = None
    location: str | None = None


def read_reply(
    status: int, headers: Mapping[str, str], body: bytes | None, request_id: str, now: datetime | None = None
) -> Reply:
    """Read an answer; ``body`` is None where it was longer than is read. Never raises."""
    after = retry_after(headers.get("retry-after"), now or datetime.now(UTC))
    if status == HTTPStatus.OK:
        return _final(body, request_id)
    if status == HTTPStatus.ACCEPTED and headers.get("location"):
        return Reply(
            Verdict.PENDING, "accepted, in progress", retry_after=after, location=headers["location"]
        )
    if 200 <= status < 300:
        return Reply(Verdict.UNCONFIRMED, f"{_named(status)}: accepted, but it says no final state")
    detail = _problem(status, body)
    if status in RETRIED or status >= 500:
        return Reply(Verdict.RETRY, detail, retry_after=after)
    if 300 <= status < 400:
        return Reply(Verdict.REFUSED, f"{_named(status)}: redirects are not followed; set the final address")
    return Reply(Verdict.GONE if status == HTTPStatus.GONE else Verdict.REFUSED, detail)


def _final(body: bytes | None, request_id: str) -> Reply:
    payload = _object(body)
    state = payload.get("state") if payload else None
    if payload is None or state not in ("contained", "partial", "failed"):
        shown = f", but state {clean(state)!r}" if isinstance(state, str) else ", but no readable state"
        return Reply(Verdict.UNCONFIRMED, f"200 OK{shown if body is not None else ', but an endless body'}")
    if payload.get("request_id", request_id) != request_id:
        return Reply(Verdict.UNCONFIRMED, "200 OK, but the answer is about another request")
    points = _points(payload.get("enforcement_points"))
    said = clean(payload.get("detail", ""))
    if state == "failed":
        return Reply(Verdict.FAILED, f"the endpoint could not do it: {said or 'it gives no reason'}", points)
    open_points = [point["name"] for point in points if point["state"] not in DONE]
    if state == "partial" or open_points:
        missing = ", ".join(open_points) or said or "it does not say where"
        return Reply(Verdict.PARTIAL, f"not stopped everywhere: {missing}"[: 2 * MAX_TEXT], points)
    if not points:
        return Reply(Verdict.UNCONFIRMED, "200 OK, state contained, but no enforcement point is named")
    return Reply(Verdict.CONFIRMED, f"confirmed by {len(points)} enforcement point(s)", points)


def _object(body: bytes | None) -> dict[str, Any] | None:
    try:
        payload = msgspec.json.decode(body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _points(value: Any) -> list[dict[str, Any]]:
    points = [point for point in value if isinstance(point, dict)] if isinstance(value, list) else []
    keys = ("name", "state", "at", "detail")
    read = [{key: clean(point.get(key, "")) for key in keys} for point in points[:MAX_POINTS]]
    if isinstance(value, list) and (len(points) != len(value) or len(points) > MAX_POINTS):
        read.append({"name": "unread", "state": "unreadable", "at": "", "detail": "not all points were read"})
    return read


def _problem(status: int, body: bytes | None) -> str:
    """Status and, where the body is a problem document (RFC 9457), its title and detail."""
    payload = _object(body) or {}
    said = [clean(payload[key]) for key in ("title", "detail") if isinstance(payload.get(key), str)]
    return ": ".join([_named(status), *filter(None, said)])


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def clean(value: Any) -> str:
    """Text from outside on one printable line of at most ``MAX_TEXT`` characters."""
    text = value if isinstance(value, str) else "" if value is None else str(value)[:MAX_TEXT]
    return "".join(char if char.isprintable() else " " for char in text[:MAX_TEXT]).strip()


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3), None where it says nothing."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
