"""What stands in the place of a value: a mask, or a fingerprint under a key of this installation."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def masked(kind: str) -> str:
    """What says only that something of this kind stood here."""
    return f"[redacted:{kind}]"


def fingerprint(key: bytes, kind: str, value: str) -> str:
    """The same for equal values of a kind, and not to be turned back without the key (RFC 2104)."""
    digest = hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()
    return f"[{kind}:{digest[:16]}]"


def load_key(file: Path) -> bytes:
    """The key in ``file``, made where there is none, readable by its owner alone.

    Raises OSError where it cannot be read or made, or is too short to be a key.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = file.read_bytes()
        if len(key) < KEY_BYTES:
            raise OSError(f"{file}: shorter than {KEY_BYTES} bytes; restore it from a backup") from None
        return key
    with os.fdopen(descriptor, "wb") as sink:
        key = secrets.token_bytes(KEY_BYTES)
        sink.write(key)
        sink.flush()
        os.fsync(sink.fileno())
    return key
