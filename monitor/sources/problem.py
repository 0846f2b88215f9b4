"""Errors as the edge answers them: RFC 9457, application/problem+json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "The API key does not allow this",
    404: "Nothing is here",
    405: "The method does not fit",
    413: "The request is too large",
    415: "The format is not known",
    422: "No event was accepted",
    429: "Too much is waiting",
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

    def response(self) -> Response:
        """The error as sent; ``detail`` names the remedy."""
        content = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "The request failed"),
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        return json_response(content, self.status, self.headers, "application/problem+json")


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(content), status, dict(headers or {}), kind)
