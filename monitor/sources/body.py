"""Request bodies: read within limits, unpacked within limits, cut into records."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import zstandard

from monitor.sources.gate import Rejected

KEPT_BYTES = 8 << 10
"""How much of a refused body goes to the dead letters."""

MAX_WINDOW = 8 << 20
"""Largest zstd window of a content coding (RFC 9659)."""

SLICE = 4 << 10
"""Compressed bytes unpacked at a time; at zstd's best, 4 bytes make 128 KiB."""

MENDABLE_BYTES = 1 << 20
"""A malformed array up to this size is searched for its good elements."""

MAX_MEMBERS = 10_000
"""Most gzip members or zstd frames in a body; an empty one takes 20 bytes and the time of a full one."""

DENSE = 4
"""An array with more commas than this many times its bound of records is first counted without
making an object of each element: 16 MiB of ``1,`` would become half a gigabyte."""

LARGE_BYTES = 64 << 10
"""A record larger than this is counted before it is decoded."""

MAX_VALUES = 20_000
"""Most values in a large record; text that holds JSON counts as one."""

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


class BodyFaultError(Exception):
    """A body that cannot be taken; ``status`` is HTTP's, ``raw`` its beginning."""

    def __init__(self, status: int, reason: str, raw: bytes | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.raw = raw


async def read(
    chunks: AsyncIterator[bytes], declared: str | None, coding: str, limit: int, grow: Callable[[int], None]
) -> bytes:
    """The body, unpacked. ``declared`` is Content-Length, ``coding`` Content-Encoding.

    ``grow`` is told of the bytes before they are held: the declared ones before the first is
    read, those of a chunked body as they come, unpacked ones from another thread. What it
    raises ends the reading. Raises BodyFaultError: 413 over ``limit`` bytes, packed or not;
    415 for an unknown coding; 400 where the packed data is damaged.
    """
    unpack = _CODINGS.get(coding.strip().lower())
    if unpack is None:
        raise BodyFaultError(415, "this Content-Encoding is not known; use gzip, zstd or identity")
    held = int(declared) if declared is not None and declared.isdigit() else 0
    if held > limit:
        raise _too_large(limit)
    if held:
        grow(held)
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise _too_large(limit, bytes(body[:KEPT_BYTES]))
        if len(body) > held:
            grow(len(body) - held)
            held = len(body)
    packed = bytes(body)
    # Unpacking lets go of the interpreter lock, so other requests go on meanwhile.
    return await asyncio.to_thread(unpack, packed, limit, grow) if unpack is not _plain else packed


def _too_large(limit: int, raw: bytes | None = None) -> BodyFaultError:
    return BodyFaultError(413, f"the body is larger than {limit} bytes; split it into several requests", raw)


def _plain(body: bytes, limit: int, grow: Callable[[int], None]) -> bytes:
    return body


def _unpack(
    body: bytes, limit: int, grow: Callable[[int], None], coding: str, begin: Callable[[], Any]
) -> bytes:
    """Unpack slice by slice, so that a bomb is found before it is large."""
    out = bytearray()
    members = 1
    stream = begin()
    rest = memoryview(body)
    fed = False
    try:
        while rest:
            piece, rest = rest[:SLICE], rest[SLICE:]
            while piece:
                unpacked = stream.decompress(piece)
                grow(len(unpacked))
                out += unpacked
                if len(out) > limit:
                    raise _too_large(limit, body[:KEPT_BYTES])
                fed, piece = not stream.eof, memoryview(stream.unused_data)
                if stream.eof:
                    stream = begin()
                    members += 1
                if members > MAX_MEMBERS:
                    told = f"more than {MAX_MEMBERS} {coding} members; pack the body as one"
                    raise BodyFaultError(413, told, body[:KEPT_BYTES])
    except (zlib.error, zstandard.ZstdError):
        raise BodyFaultError(400, f"the {coding} data is damaged; send it again", body[:KEPT_BYTES]) from None
    if fed or not body:
        raise BodyFaultError(400, f"the {coding} data ends too early; send it again", body[:KEPT_BYTES])
    return bytes(out)


def _gunzip(body: bytes, limit: int, grow: Callable[[int], None]) -> bytes:
    return _unpack(body, limit, grow, "gzip", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16))


def _unzstd(body: bytes, limit: int, grow: Callable[[int], None]) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    return _unpack(body, limit, grow, "zstd", decompressor.decompressobj)


_CODINGS = {"": _plain, "identity": _plain, "gzip": _gunzip, "x-gzip": _gunzip, "zstd": _unzstd}


def records(body: bytes, content_type: str, most: int) -> Sequence[bytes | Rejected]:
    """The records of a body: one JSON object, an array, or NDJSON, each as its own bytes.

    Whether a record is good JSON is the gate's to say; one of too many values is refused here,
    before it is decoded. Raises BodyFaultError: 400 where the
    body is empty or its records cannot be told apart, 413 where there are more than ``most``.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise BodyFaultError(400, "the body is empty; send a JSON object, an array of them, or NDJSON")
    lines = content_type.partition(";")[0].strip().lower() in NDJSON
    if body.startswith(b"[") and not lines:
        found = _elements(body, most)
    elif lines or body[: body.find(b"\n")].rstrip().endswith(b"}"):
        if body.count(b"\n") > 2 * most:
            raise _too_many(most)
        found = [line for line in map(bytes.strip, body.split(b"\n")) if line]
    else:
        found = [body]
    if len(found) > most:
        raise _too_many(most)
    if len(body) > LARGE_BYTES and max(map(len, found)) > LARGE_BYTES:
        return [_bounded(record) for record in found]
    return found


def _bounded(record: bytes) -> bytes | Rejected:
    """The record, unless decoding it would make an object of each of very many tiny values."""
    if len(record) <= LARGE_BYTES or _marks(record) <= MAX_VALUES:
        return record
    outside_strings = 0
    for token in _TOKEN.finditer(record):
        outside_strings += token[0][:1] in b"[{,"
        if outside_strings > MAX_VALUES:
            told = f"more than {MAX_VALUES} values in one record; send nested content as JSON text"
            return Rejected(told, record)
    return record


def _marks(record: bytes) -> int:
    return record.count(b",") + record.count(b"[") + record.count(b"{")


def _too_many(most: int) -> BodyFaultError:
    return BodyFaultError(413, f"more than {most} records in one request; split it into several")


class _Thing(msgspec.Struct, gc=False):
    """An object of which nothing is kept."""


def _count_objects(body: bytes, most: int) -> None:
    """Refuse an array of too many elements at the cost of few objects: none for a scalar."""
    if body.count(b"{") > 4 * DENSE * most:
        raise _too_many(most)
    if len(msgspec.json.decode(body, type=list[_Thing])) > most:
        raise _too_many(most)


def _elements(body: bytes, most: int) -> list[bytes]:
    try:
        if body.count(b",") > DENSE * most:
            _count_objects(body, most)
        return [bytes(element) for element in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, RecursionError):
        if len(body) > MENDABLE_BYTES:
            raise BodyFaultError(
                400,
                "the array is not valid JSON, or not of objects; send NDJSON, where a bad line stands alone",
                body[:KEPT_BYTES],
            ) from None
    return _apart(body, most)


_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)


def _apart(body: bytes, most: int) -> list[bytes]:
    """Elements of a malformed array, cut at the commas that stand in no bracket or string."""
    found = []
    depth, start = 0, 1
    for token in _TOKEN.finditer(body):
        mark = token[0][:1]
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if (mark == b"," and depth == 1) or (depth == 0 and mark in b"]}"):
            found.append(body[start : token.start()].strip())
            start = token.end()
        if depth == 0 or len(found) > most:
            break
    rest = body[start:].strip()
    return [*found, rest] if rest else found
