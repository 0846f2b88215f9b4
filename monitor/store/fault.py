"""What went wrong with ClickHouse, in a line for people.

The libraries' own words hold the request's URL, and with it the statement and the values that
were asked for: nothing for a log. Their loggers say the same once more, so they are quiet here.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator

from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    ReadTimeoutError,
    SSLError,
)

Connect = Callable[..., Client]
"""Opens one more client on the database."""

LONGEST = 400
"""Characters of what ClickHouse itself answered."""

for _name in ("clickhouse_connect.driver._backend.http_sync", "urllib3.connectionpool"):
    logging.getLogger(_name).setLevel(logging.ERROR)

ANSWERS = {
    497: "its user lacks a right: {said}; grant CREATE, INSERT and SELECT on the database",
    516: "it refuses the user or the password; check store.user and store.password or store.password_file",
}
"""What to do about an answer, by ClickHouse's code of it."""


class StoreError(ClickHouseError):
    """The event store cannot be opened, written or read; the message names the remedy."""


def reason(error: Exception) -> str:
    """Why ClickHouse did not do as asked, with the remedy where there is one."""
    if isinstance(error, StoreError):
        return str(error)
    for cause in _causes(error):
        if isinstance(cause, SSLError | ssl.SSLError):
            return _tls(cause)
        if isinstance(cause, NameResolutionError):
            return "the name of its host is unknown; check store.dsn"
        if isinstance(cause, ConnectTimeoutError):
            return "nobody answers at that address; start it, or check store.dsn"
        if isinstance(cause, ReadTimeoutError):
            return "no answer within store.answer_seconds; see how it is"
    if any(isinstance(cause, HTTPError) for cause in _causes(error)):
        return "the connection broke off"
    said = " ".join(str(error).split())[:LONGEST]
    code = error.code if isinstance(error, DatabaseError) else None
    return ANSWERS[code].format(said=said) if code in ANSWERS else said


def _tls(error: Exception) -> str:
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        why = said.partition("certificate verify failed:")[2].partition(" (_ssl")[0].strip()
        return f"its certificate is not trusted ({why}); name its authority in store.ca_file"
    if "WRONG_VERSION_NUMBER" in said:
        return "it does not speak TLS at that port; check store.dsn"
    return f"TLS fails: {said[:LONGEST]}; check store.ca_file, store.client_cert and store.client_key"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        wrapped = error.reason if isinstance(error, MaxRetryError) else None
        error = wrapped or error.__cause__ or error.__context__
