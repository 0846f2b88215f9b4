"""Reaching a ClickHouse server as the settings say."""

from __future__ import annotations

from functools import partial
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from monitor.settings import StoreSettings
from monitor.store.dsn import Dsn
from monitor.store.fault import Connect, StoreError, reason


def connect_to(dsn: Dsn, store: StoreSettings) -> tuple[Client, Connect]:
    """One client of the server, its database there, and the way to further ones.

    Raises StoreError where the server cannot be used as the settings say.
    """
    options = _options(dsn, store)
    try:
        client = clickhouse_connect.get_client(**options)
        client.command(f"CREATE DATABASE IF NOT EXISTS {dsn.database}")
    except ClickHouseError as error:
        raise StoreError(
            f"ClickHouse at {dsn.host}:{dsn.port} (settings under store) cannot be used: {reason(error)}"
        ) from None
    client.database = dsn.database
    return client, partial(clickhouse_connect.get_client, **options, database=dsn.database)


def _options(dsn: Dsn, store: StoreSettings) -> dict[str, Any]:
    """What clickhouse-connect wants to know."""
    password = dsn.password or _password(store)
    options: dict[str, Any] = {
        "host": dsn.host,
        "port": dsn.port,
        "interface": "https" if dsn.secure else "http",
        "username": dsn.user or store.user,
        "password": password,
        "connect_timeout": store.connect_seconds,
        "send_receive_timeout": store.answer_seconds,
        # otherwise a fault's text would hold addresses of requests
        "show_clickhouse_errors": "scrub",
        # a session would refuse a second query while the first one runs
        "autogenerate_session_id": False,
        "tz_mode": "aware",
    }
    files = {"ca_cert": store.ca_file, "client_cert": store.client_cert, "client_cert_key": store.client_key}
    for name, file in files.items():
        if file is not None:
            if not file.is_file():
                raise StoreError(f"{file}, named in the settings under store, is not there")
            options[name] = str(file)
    if store.client_cert and password:
        # not the certificate in place of the password, but both
        options["tls_mode"] = "strict"
    return options


def _password(store: StoreSettings) -> str:
    if store.password_file is None:
        return store.password.get_secret_value() if store.password else ""
    try:
        return store.password_file.read_text().strip()
    except OSError as error:
        raise StoreError(
            f"store.password_file: {store.password_file} cannot be read: {error.strerror}"
        ) from None
