"""What has been seen: repeats are dropped, the same id with other content is kept as evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from monitor.events import COLUMNS, INHERITED, REPLAYED, RESERVED, Record
from monitor.sources.context import FOLDED, SAID
from monitor.sources.segment import MAGIC, Entry, scan, segment_path, segments

CONFLICT = RESERVED + "conflict"
"""Marks an event whose id an earlier event with other content already had; holds that id."""

FINGERPRINTS = b"watchkeeper.fingerprints"
"""Key of the Arrow schema's metadata that holds the fingerprints of a batch, eight bytes a row."""

_APART = {"event_id", "ingested_at", "tenant", "identity", "attributes", "data_accessed"}
_CONTENT = [column.name for column in COLUMNS if column.name not in _APART]
_SENT = [column.name not in _APART for column in COLUMNS]
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def fingerprint(record: Any) -> bytes:
    """Eight bytes over what the producer sent, leaving out its id and all that we set."""
    attributes = record.attributes or {}
    sent = {k: v for k, v in attributes.items() if not k.startswith(RESERVED)}
    # Sent in another cut, a span may be folded with other spans, and stand below others.
    sent.pop(FOLDED, None)
    said: dict[str, str] = {}
    # Several times as fast as to ask for each column by its name.
    content = tuple(compress(msgspec.structs.astuple(record), _SENT))
    # Sent again, an event may inherit what was not known yet when it came first.
    hidden = set(attributes[INHERITED].split(",")) if INHERITED in attributes else set()
    if hidden:
        said = {name: sent.pop(SAID + name) for name in hidden if SAID + name in sent}
    if record.identity == "provisional":
        hidden.add("agent_id")
    if hidden:
        content = tuple(
            said.get(name) if name in hidden else value for name, value in zip(_CONTENT, content, strict=True)
        )
    return hashlib.blake2b(
        _encoder.encode((content, record.data_accessed or [], sent)), digest_size=8
    ).digest()


class Sorted(NamedTuple):
    """Records to write, in order, with their fingerprints; conflicts are among them."""

    fresh: list[Any]
    fingerprints: list[bytes]
    duplicates: int
    conflicts: int


class Seen:
    """A bounded window of (tenant, event_id, revision) and the content it came with.

    What was replayed may still happen, so a live event is compared with live ones only; what
    happened live and is replayed is a repeat.

    It holds the last ``capacity`` ids at least and twice as many at most: two generations,
    the elder dropped whole when the younger is full. An id counts as seen only once
    ``settle`` says that its event is durable; ``forget`` takes back what was not.
    """

    def __init__(self, capacity: int = 500_000) -> None:
        self.capacity = capacity
        self._young: dict[int, bytes] = {}
        self._old: dict[int, bytes] = {}
        self._pending: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def sort(self, records: Iterable[Any]) -> Sorted:
        """Tell fresh records from repeats; a conflict gets an id of its own and a mark."""
        fresh: list[Any] = []
        prints: list[bytes] = []
        duplicates = conflicts = 0
        for record in records:
            content = fingerprint(record)
            known = self._lookup(record)
            if known is not None and known != content:
                known = self._apart(record, content)
                conflicts += known is None
            if known is not None:
                duplicates += 1
                continue
            replayed = REPLAYED in (record.attributes or {})
            self._pending[_key(record.tenant, record.event_id, record.revision, replayed)] = content
            fresh.append(record)
            prints.append(content)
        return Sorted(fresh, prints, duplicates, conflicts)

    def _apart(self, record: Any, content: bytes) -> bytes | None:
        """Give a conflict an id of its own; its content where it has come under that id before."""
        original = record.event_id
        record.attributes = {**(record.attributes or {}), CONFLICT: original}
        record.event_id = f"{original}#conflict-{content.hex()}"
        # Somebody may have taken that id too, with other content: senders choose their ids.
        while (known := self._lookup(record)) is not None and known != content:
            record.event_id += "+"
        return known

    def _lookup(self, record: Any) -> bytes | None:
        replayed = REPLAYED in (record.attributes or {})
        known = self._known(_key(record.tenant, record.event_id, record.revision, replayed))
        if known is None and replayed:
            return self._known(_key(record.tenant, record.event_id, record.revision, False))
        return known

    def _known(self, key: int) -> bytes | None:
        return self._pending.get(key) or self._young.get(key) or self._old.get(key)

    def settle(self) -> None:
        """What was sorted since is durable: from now on it is a repeat."""
        self._remember(self._pending)
        self._pending = {}

    def forget(self) -> None:
        """What was sorted since did not become durable: a retry must be fresh."""
        self._pending = {}

    def _remember(self, ids: dict[int, bytes]) -> None:
        self._young.update(ids)
        if len(self._young) >= self.capacity:
            self._old, self._young = self._young, {}

    @classmethod
    def load(cls, folder: Path, capacity: int = 500_000) -> Seen:
        """The window as it stood, from the newest events of the spool's retained segments."""
        seen = cls(capacity)
        newest: list[dict[int, bytes]] = []
        held = 0
        for number in reversed(segments(folder)):
            ids = dict(_ids(segment_path(folder, number).read_bytes()))
            newest.append(ids)
            held += len(ids)
            if held >= capacity:
                break
        for ids in reversed(newest):
            seen._remember(ids)
        return seen


def _key(tenant: str, event_id: str, revision: int | None, replayed: bool) -> int:
    # A keyed 64-bit hash (Python salts it per process): compact, and not to be aimed at.
    return hash((tenant, event_id, revision or 0, replayed))


def _ids(data: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, payload, _ in scan(data, len(MAGIC)):
        if kind is not Entry.EVENTS:
            continue
        table = pa.ipc.open_stream(payload).read_all()
        packed = (table.schema.metadata or {}).get(FINGERPRINTS)
        if packed is None:
            rows = table.to_pylist(maps_as_pydicts="strict")
            packed = b"".join(fingerprint(msgspec.convert(row, Record)) for row in rows)
        marks = pc.is_valid(pc.map_lookup(table["attributes"], pa.scalar(REPLAYED), "last"))
        columns = (table["tenant"], table["event_id"], table["revision"], marks)
        names = zip(*(column.to_pylist() for column in columns), strict=True)
        for row, name in enumerate(names):
            yield _key(*name), packed[row * 8 : row * 8 + 8]
