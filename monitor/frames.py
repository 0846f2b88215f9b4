"""From the spool's Arrow to the frame that detectors read, and back to bytes."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from detectors.sigma.elements import nested
from monitor.events import ARROW_SCHEMA, COLUMNS, REPEAT_OF, REPLAYED

# Batches are small: handing buffers to a pool of threads costs more than it saves.
_WRITING = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READING = pa.ipc.IpcReadOptions(use_threads=False)


TEXT_COLUMNS = frozenset(column.name for column in COLUMNS if column.kind.label == "string")
"""Columns that may hold JSON text, so that a rule may name a key inside."""


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """A batch as an Arrow IPC stream, lz4: the payload of a spool record."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_WRITING) as writer:
        writer.write_batch(batch)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def from_bytes(payloads: Sequence[bytes]) -> pa.Table:
    """Payloads of spool records as one table, in order."""
    tables = [pa.ipc.open_stream(payload, options=_READING).read_all() for payload in payloads]
    return pa.concat_tables(tables) if tables else ARROW_SCHEMA.empty_table()


def to_frame(events: pa.Table | pa.RecordBatch, attribute_keys: Sequence[str] = ()) -> pl.DataFrame:
    """Events as detectors read them.

    All columns of the schema but ``attributes``, then ``replayed`` (bool), ``repeat_of`` (the id
    of the event that reported the same call before) and one string column ``attributes.<key>``
    for each of ``attribute_keys``; the key ``*`` stands for the values of all of them, a line each.
    A key ``a.b`` that an event lacks is sought as ``b`` inside its attribute, or its column, ``a``
    that holds a JSON object.
    """
    table = pa.table(events) if isinstance(events, pa.RecordBatch) else events
    attributes = table["attributes"]
    extra: dict[str, pa.ChunkedArray | pl.Series] = {}
    for key in attribute_keys:
        values = _attribute(attributes, key)
        extra[f"attributes.{key}"] = _nested(table, key, values) if "." in key else values
    extra["replayed"] = pc.is_valid(pc.map_lookup(attributes, pa.scalar(REPLAYED), "last"))
    extra["repeat_of"] = pc.map_lookup(attributes, pa.scalar(REPEAT_OF), "last")
    # the metadata are the edge's fingerprints: bytes, where polars insists on text
    plain = table.drop_columns(["attributes"]).replace_schema_metadata(None)
    for name, values in extra.items():
        plain = plain.append_column(name, values)
    framed = pl.from_arrow(plain)
    assert isinstance(framed, pl.DataFrame)
    return framed


def _attribute(attributes: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    """One attribute's texts, null where it is absent; of ``*`` all values of each row, joined."""
    if key != "*":
        return pc.map_lookup(attributes, pa.scalar(key), "last")
    return pa.chunked_array([_joined(chunk) for chunk in attributes.chunks], pa.string())


def _nested(table: pa.Table, key: str, found: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values found, and where there is none what the key's dots lead to in a JSON object."""
    steps = key.split(".")
    for inside in range(len(steps) - 1, 0, -1):
        if not found.null_count:
            break
        parent = ".".join(steps[:inside])
        homes = [pc.map_lookup(table["attributes"], pa.scalar(parent), "last")]
        if inside == 1 and parent in TEXT_COLUMNS:
            homes.append(table[parent])
        for home in homes:
            if home.null_count < len(home):
                found = pc.coalesce(found, _inside(home, steps[inside:]))
    return found


def _inside(texts: pa.ChunkedArray, steps: Sequence[str]) -> pa.ChunkedArray:
    """What stands under nested keys in texts that are JSON objects; null where nothing does."""
    return pa.chunked_array([_each_inside(chunk, steps) for chunk in texts.chunks], pa.string())


def _each_inside(texts: pa.Array, steps: Sequence[str]) -> pa.Array:
    encoded = texts.dictionary_encode()
    found = [nested(text, steps) for text in encoded.dictionary.to_pylist()]
    return pc.take(pa.array(found, pa.string()), encoded.indices)


def _joined(attributes: pa.MapArray) -> pa.Array:
    values = pa.ListArray.from_arrays(attributes.offsets, attributes.items)
    none = pc.equal(pc.list_value_length(values), 0)
    return pc.if_else(none, pa.scalar(None, pa.string()), pc.binary_join(values, "\n"))
