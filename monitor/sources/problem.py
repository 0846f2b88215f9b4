"""Errors as the edge answers them: RFC 9457, application/problem+json."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "The API key does not allow this",
    404: "Nothing is here",
    405: "The method does not fit",
    408: "The request came too slowly",
    413: "The request is too large",
    415: "The format is not known",
    422: "No event was accepted",
    429: "Too much is waiting",
    431: "The header is too large",
    500: "Watchkeeper failed",
    503: "Nothing can be kept now",
}


class ProblemError(Exception):
    """An answer that is an error: RFC 9457, application/problem+json."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def content(self) -> dict[str, Any]:
        """The members of the problem; ``detail`` names the remedy."""
        return {
            "type": "about:blank",
            "title": TITLES.get(self.status, "The request failed"),
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }

    def response(self) -> Response:
        """The error as sent."""
        return json_response(self.content(), self.status, self.headers, "application/problem+json")


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(content), status, dict(headers or {}), kind)


def plain_answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A problem as the bytes of an HTTP/1.1 answer that closes the connection, where no app runs."""
    answer = ProblemError(status, detail, {**(headers or {}), "Connection": "close"}).response()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
    lines += [name + b": " + value for name, value in answer.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])
