"""What stands in the place of a value: a mask, or a fingerprint under a key of this installation."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

KEY_BYTES = 32

STAND = re.compile(r"\[(?:redacted:[a-z][a-z0-9_-]{0,39}|[a-z][a-z0-9_-]{0,39}:[0-9a-f]{16})\]")
"""A mask or a fingerprint."""


def masked(kind: str) -> str:
    """What says only that something of this kind stood here."""
    return f"[redacted:{kind}]"


def fingerprint(key: bytes, kind: str, value: str) -> str:
    """The same for equal values of a kind, and not to be turned back without the key (RFC 2104)."""
    digest = hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()
    return f"[{kind}:{digest[:16]}]"


def keyed(key: bytes, name: str) -> str:
    """24 hexadecimal digits for a name that was made of what may have to be redacted."""
    return hmac.new(key, b"name\0" + name.encode(), hashlib.sha256).hexdigest()[:24]


def load_key(file: Path) -> bytes:
    """The key in ``file``, made where there is none, readable by its owner alone.

    Raises OSError as ``read_key`` does, and where it cannot be made.
    """
    return read_key(file) or _made(file)


def read_key(file: Path) -> bytes | None:
    """The key in ``file``; None where there is no such file.

    Raises OSError where it cannot be read, is too short to be a key, or may be read by everybody.
    """
    try:
        with file.open("rb") as source:
            if os.fstat(source.fileno()).st_mode & 0o007:
                raise OSError(f"{file}: everybody may read it; `chmod o= {file.name}`")
            key = source.read()
    except FileNotFoundError:
        return None
    if len(key) < KEY_BYTES:
        raise OSError(f"{file}: shorter than {KEY_BYTES} bytes; restore it from a backup")
    return key


def _made(file: Path) -> bytes:
    """A new key, in its file whole or not at all."""
    key = secrets.token_bytes(KEY_BYTES)
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(key)
        sink.flush()
        os.fsync(sink.fileno())
    draft.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
