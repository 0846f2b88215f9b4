"""The address of a ClickHouse server as one line: ``clickhouses://user:password@host:8443/database``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

DATABASE = "watchkeeper"

PORTS = {"clickhouse": 8123, "http": 8123, "clickhouses": 8443, "https": 8443}


@dataclass(frozen=True)
class Dsn:
    """What stands in it; ``secure`` means TLS."""

    secure: bool
    host: str
    port: int
    database: str
    user: str | None
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Take it apart. Raises ValueError, whose message shows no part of it: it may hold a password."""
        parts = urlsplit(text)
        if parts.scheme not in PORTS:
            raise ValueError("dsn must begin with clickhouse:// or, for TLS, clickhouses://")
        if parts.query or parts.fragment:
            raise ValueError("dsn takes no ? or #; write %3F and %23 in a password, and options under store")
        database = parts.path.strip("/") or DATABASE
        try:
            port = parts.port or PORTS[parts.scheme]
        except ValueError:
            port = 0
        if not parts.hostname or not port or not re.fullmatch(r"\w+", database, re.ASCII):
            raise ValueError(
                "dsn must be clickhouse://user:password@host:port/database, the database's name of letters, "
                "digits and underscores; / : @ in a password are written %2F %3A %40, or use store.password"
            )
        user, password = (unquote(part) if part else None for part in (parts.username, parts.password))
        return cls(PORTS[parts.scheme] == 8443, parts.hostname, port, database, user, password)
