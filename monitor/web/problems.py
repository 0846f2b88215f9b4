"""Errors as problem details (RFC 9457) for programs, and as a plain page for people."""

from __future__ import annotations

import http
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from monitor.web.safe import safe_plain
from monitor.web.templating import render

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error as a problem document (RFC 9457)",
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "errors": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["field", "reason"],
                                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
                            },
                        },
                    },
                }
            }
        },
    }
}
"""What OpenAPI says of every answer that is no success."""


class Problem(HTTPException):
    """An answer that is an error; ``detail`` is one sentence that names the remedy."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


class SignInNeeded(Exception):  # noqa: N818 - it states a fact
    """Somebody without a session asked for a page."""


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **extra: object) -> JSONResponse:
    """An ``application/problem+json`` answer."""
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse({**body, **extra}, status, headers=headers, media_type="application/problem+json")


def _for_program(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/metrics", "/readyz", "/healthz"))


def _answer(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    if _for_program(request):
        return problem(status, detail, headers)
    if "hx-request" in request.headers:
        # htmx shows this in the notice line; an empty body would leave the reader guessing.
        return HTMLResponse(safe_plain(detail), status, headers)
    title = http.HTTPStatus(status).phrase
    return HTMLResponse(render("error.html", title=title, detail=detail), status, headers)


def _sign_in(request: Request, _error: Exception) -> Response:
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    return RedirectResponse("/login", 303)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(request, error.status_code, str(error.detail), dict(error.headers or {}))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Pydantic repeats the input in its errors; it is a stranger's text and stays out of the answer.
    faults = [
        {"field": ".".join(map(str, fault["loc"])), "reason": fault["msg"]} for fault in error.errors()[:20]
    ]
    if _for_program(request):
        return problem(422, "the request does not fit the schema; see /openapi.json", errors=faults)
    return _answer(request, 422, "; ".join(f"{fault['field']}: {fault['reason']}" for fault in faults))


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` in these two forms."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(SignInNeeded, _sign_in)
