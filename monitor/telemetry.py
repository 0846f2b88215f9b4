"""Watchkeeper's own log: one JSON object a line on stderr, or plain lines on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

Log = structlog.stdlib.BoundLogger


def configure(process: str) -> None:
    """Set up logging for this process; every line says which process wrote it.

    JSON escapes control characters, so nothing that an agent names can forge a line.
    """
    terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def logger() -> Log:
    """The process's logger."""
    return structlog.get_logger()  # type: ignore[no-any-return]
