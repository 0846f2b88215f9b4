"""Watchkeeper's own log: one JSON object a line on stderr, or plain lines on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog

Log = structlog.stdlib.BoundLogger


class Unfailing:
    """A stream that may lie on a full disk: what it refuses is counted, not raised.

    A log that cannot be written must not end the thread that had something to say. The
    next line that gets through is followed by the count.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._refused = False
        self._lost = 0

    def write(self, text: str) -> None:
        """Write as far as the disk allows."""
        try:
            self._stream.write(text)
        except OSError:
            self._refused = True

    def flush(self) -> None:
        """End a line: count it as lost, or tell how many were lost before it."""
        if self._lost and not self._refused:
            count, self._lost = self._lost, 0
            self.write(f'{{"event": "log lines were lost before the last", "lines": {count}}}\n')
        try:
            self._stream.flush()
        except OSError:
            self._refused = True
        self._lost += self._refused
        self._refused = False


def configure(process: str) -> None:
    """Set up logging for this process; every line says which process wrote it.

    JSON escapes control characters, so nothing that an agent names can forge a line; for a
    terminal they are replaced.
    """
    rendering: list[structlog.types.Processor] = (
        [_printable, structlog.dev.ConsoleRenderer(colors=True)]
        if sys.stderr.isatty()
        else [structlog.processors.JSONRenderer()]
    )
    stream = cast(TextIO, Unfailing(sys.stderr))

    def name(_logger: object, _method: str, line: structlog.types.EventDict) -> structlog.types.EventDict:
        # not by context variables: a thread begins without any
        return {"process": process, **line}

    steps: list[structlog.types.Processor] = [
        name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*steps, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # What libraries say takes the same form: they may quote what a sender wrote.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *steps],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def _printable(_logger: object, _method: str, line: structlog.types.EventDict) -> structlog.types.EventDict:
    return {name: _shown(value, "\n" if name == "exception" else "") for name, value in line.items()}


def _shown(value: object, kept: str) -> object:
    if not isinstance(value, str):
        return value
    return "".join(
        char if char.isprintable() or char in kept else "\N{REPLACEMENT CHARACTER}" for char in value
    )


def logger() -> Log:
    """The process's logger."""
    return structlog.get_logger()  # type: ignore[no-any-return]
