"""The gate: each record is checked by itself; a bad one never takes its neighbours down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from detectors.base import stable_id
from monitor.events import BY_NAME, COLUMNS, REPLAYED, RESERVED, Kind, Record
from monitor.settings import EdgeSettings
from monitor.sources.jsonkeys import RepeatedKeyError, maybe_repeats, refuse_repeats
from monitor.sources.keys import Sender
from monitor.sources.reasons import excerpt, explain, malformed
from monitor.sources.redaction.redactor import Redactor
from monitor.sources.seen import fingerprint

CUT = RESERVED + "cut."
"""Marks a column that was cut; holds its original length in bytes."""

CLOCK = RESERVED + "clock"
"""``future`` where an event's time is after its arrival by more than ``CLOCK_SKEW``; ``ancient``
where it is before it by more than ``LATENESS``, unless the event is replayed."""

CLOCK_SKEW = timedelta(minutes=5)

LATENESS = timedelta(minutes=10)
"""The same that detection allows (``detectors.sigma.correlation.LATENESS``)."""

TEXTS = frozenset(
    {"task_goal", "model_input", "model_output", "model_settings", "tool_description", "tool_args"}
    | {"tool_result", "target", "policy_reason", "error_message"}
)
"""Columns of free text, which are cut where too long. All other strings are names: refused."""

YEARS = range(1901, 2299)
"""What ClickHouse's DateTime64 can hold at microseconds, whatever the offset."""

_FIELDS = Record.__struct_fields__
_STRINGS = [
    (c.name, c.name in TEXTS) for c in COLUMNS if c.kind in (Kind.STRING, Kind.LABEL) and c.name != "event_id"
]
_TEXT_NAMES = [name for name, text in _STRINGS if text]
_FLOATS = [c.name for c in COLUMNS if c.kind is Kind.FLOAT]
_TIMES = [c.name for c in COLUMNS if c.kind is Kind.TIMESTAMP]
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)


Form = Literal["record", "request", "excerpt"]
"""What the raw bytes of a refusal are: one event as JSON, a whole request body that can be
posted again by itself, or only a part of something."""


@dataclass
class Rejection:
    """Why the record at ``index`` of its request was refused: one sentence that names the remedy."""

    index: int
    reason: str
    raw: bytes | None = None
    form: Form = "record"


class Rejected(Exception):  # noqa: N818
    """A record is refused. ``raw`` is what was sent, as far as it is known, in that ``form``."""

    def __init__(self, reason: str, raw: bytes | None = None, form: Form = "record") -> None:
        super().__init__(reason)
        self.reason = reason
        self.raw = raw
        self.form = form

    def at(self, index: int) -> Rejection:
        """The same, with its place in the request."""
        return Rejection(index, self.reason, self.raw, self.form)


class Gate:
    """Checks records against the schema and the limits, and sets what only we may set."""

    def __init__(
        self,
        limits: EdgeSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        redactor: Redactor | None = None,
    ) -> None:
        self.limits = limits
        self._redactor = redactor
        self._now = now
        self._wire = _wire(limits)
        self._decoder = msgspec.json.Decoder(self._wire)

    def check(self, item: bytes | dict[str, object] | Rejected, sender: Sender) -> Any:
        """The checked record of an item: JSON bytes, or an event mapped from another dialect.

        Raises Rejected, with a reason that names field and remedy.
        """
        try:
            if isinstance(item, Rejected):
                raise item
            return self._checked(item, sender)
        except Rejected as fault:
            if fault is not item:
                fault.raw = item if isinstance(item, bytes) else msgspec.json.encode(item)
            fault.raw = self.keepable(fault.raw, sender)
            fault.reason = self.tellable(fault.reason, sender)
            raise

    def keepable(self, raw: bytes | None, sender: Sender) -> bytes | None:
        """What a dead letter may keep of refused bytes."""
        return raw if self._redactor is None else self._redactor.raw(raw, sender)

    def tellable(self, text: str, sender: Sender) -> str:
        """What a dead letter may say that quotes the sender."""
        return text if self._redactor is None else self._redactor.told(text, sender)

    def _checked(self, item: bytes | dict[str, object], sender: Sender) -> Any:
        mapped = not isinstance(item, bytes)
        if isinstance(item, bytes):
            record = self._from_json(item)
            size, plain = len(item), item.isascii() and b"\\u" not in item
        else:
            record = self._convert(item)
            self._finite(record)
            size, plain = None, False
        marks = self._who(record, sender, mapped)
        if self._redactor is None:
            self._limit(record, size, plain)
        else:
            marks |= self._redact(self._redactor, record, sender)
        self._own(record, sender, marks)
        return record

    def _redact(self, redactor: Redactor, record: Any, sender: Sender) -> dict[str, str]:
        """Redact, then hold to the limits: half a secret is not recognised, and is still half a secret."""
        if record.event_id:
            record.event_id = redactor.event_id(record.event_id, sender)
        else:
            # Made before: what differs in redacted values only is not the same.
            record.event_id = redactor.made_id(fingerprint(record))
        long = redactor.record(record, sender, self.limits.max_text_bytes)
        self._limit(record, None, plain=False)
        cut = record.attributes or {}
        return {CUT + one.place: str(one.size) for one in long if one.cut or CUT + one.place in cut}

    def _from_json(self, raw: bytes) -> Any:
        try:
            record = self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            if not str(error).startswith("Object contains unknown field"):
                raise Rejected(explain(error)) from None
            return self._with_unknown(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(malformed(error)) from None
        given = len(_FIELDS) - msgspec.structs.astuple(record).count(None)
        if record.attributes:
            given += len(record.attributes)
        if maybe_repeats(raw, given):
            _unique(raw)
        return record

    def _with_unknown(self, raw: bytes) -> Any:
        """The record, its unknown top-level keys moved into attributes."""
        try:
            values = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(malformed(error)) from None
        _unique(raw)
        attributes = values.get("attributes")
        if attributes is None:
            attributes = {}
        elif not isinstance(attributes, dict):
            raise Rejected("attributes: expected an object of names and values")
        unknown = {key: values.pop(key) for key in [*values] if key not in BY_NAME}
        if both := unknown.keys() & attributes.keys():
            name = excerpt(min(both))
            raise Rejected(f"{name} stands both at the top level and in attributes; send it once")
        return self._convert({**values, "attributes": {**attributes, **unknown}})

    def _convert(self, values: dict[str, object]) -> Any:
        try:
            return msgspec.convert(values, self._wire)
        except msgspec.ValidationError as error:
            raise Rejected(explain(error)) from None

    def _finite(self, record: Any) -> None:
        for name in _FLOATS:
            value = getattr(record, name)
            if value is not None and not math.isfinite(value):
                raise Rejected(f"{name}: not a finite number; leave it out where it is not known")

    def _limit(self, record: Any, size: int | None, plain: bool) -> None:
        """Hold names and times to their limits and cut long texts.

        ``size`` bounds every text in bytes; ``plain`` says that characters are bytes.
        """
        for name in _TIMES:
            moment = getattr(record, name)
            if moment is not None and moment.year not in YEARS:
                raise Rejected(f"{name}: year {moment.year} is out of range; send a date from 1901 to 2298")
        if not plain:
            self._limit_names(record)
        if record.attributes:
            record.attributes = self._attributes(record.attributes)
        if size is None or size > self.limits.max_text_bytes:
            self._cut_texts(record)

    def _limit_names(self, record: Any) -> None:
        for name, text in _STRINGS:
            value = getattr(record, name)
            if value is not None and not text and not _fits(value, self.limits.max_name_bytes):
                raise Rejected(f"{name}: longer than {self.limits.max_name_bytes} bytes; send a shorter name")
        if record.event_id and not _fits(record.event_id, self.limits.max_name_bytes):
            raise Rejected(f"event_id: longer than {self.limits.max_name_bytes} bytes; a UUIDv7 has 36")

    def _attributes(self, given: dict[str, Any]) -> dict[str, str]:
        """Attributes as text; names that only we may set are moved aside."""
        kept: dict[str, str] = {}
        limit = self.limits.max_name_bytes
        for sent, value in given.items():
            if not _fits(sent, limit):
                raise Rejected(
                    f"attributes: a name is longer than {limit} bytes: {excerpt(sent)}; send a shorter one"
                )
            name = sent
            while name.startswith(RESERVED) or (name != sent and name in given):
                name = "producer." + name
            kept[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return kept

    def _cut_texts(self, record: Any) -> None:
        limit = self.limits.max_text_bytes
        cuts: dict[str, str] = {}
        for name in _TEXT_NAMES:
            value = getattr(record, name)
            if value is not None and not _fits(value, limit):
                setattr(record, name, _cut(value, limit))
                cuts[CUT + name] = str(len(value.encode()))
        for name, value in (record.attributes or {}).items():
            if not _fits(value, limit):
                record.attributes[name] = _cut(value, limit)
                cuts[f"{CUT}attributes.{name}"] = str(len(value.encode()))
        if record.data_accessed and not all(_fits(value, limit) for value in record.data_accessed):
            cuts[CUT + "data_accessed"] = str(sum(len(value.encode()) for value in record.data_accessed))
            record.data_accessed = [_cut(value, limit) for value in record.data_accessed]
        if cuts:
            record.attributes = {**(record.attributes or {}), **cuts}

    def _who(self, record: Any, sender: Sender, mapped: bool) -> dict[str, str]:
        """Set the tenant, which the key says, and how far the agent's name can be trusted; marks of it."""
        if record.tenant not in (None, sender.tenant):
            raise Rejected(
                f"tenant: {excerpt(record.tenant)} is not the tenant of this API key; use that tenant's key"
            )
        record.tenant = sender.tenant
        claimed, record.identity = record.identity, _identity(record, sender, mapped)
        return {"producer.identity": claimed} if claimed not in (None, record.identity) else {}

    def _own(self, record: Any, sender: Sender, marks: dict[str, str]) -> None:
        """Set what else the sender may not: revision, time of receipt and our ``marks``."""
        now = self._now()
        if record.revision is not None:
            # A revision is no event to the rules: who could send one could hide behind it.
            if record.revision:
                marks["producer.revision"] = str(record.revision)
            record.revision = None
        if record.ingested_at is not None:
            marks["producer.ingested_at"] = record.ingested_at.isoformat()
        record.ingested_at = now
        if not record.event_id:
            record.event_id = stable_id("evt", record.tenant, fingerprint(record).hex())
        if record.timestamp - now > CLOCK_SKEW:
            marks[CLOCK] = "future"
        elif now - record.timestamp > LATENESS and not sender.replaying:
            marks[CLOCK] = "ancient"
        if sender.replaying:
            marks[REPLAYED] = "true"
        if marks:
            record.attributes = {**(record.attributes or {}), **marks}


def _identity(record: Any, sender: Sender, mapped: bool) -> str:
    """How far the agent's name can be trusted; a key tied to agents speaks for no other."""
    provisional = mapped and record.identity == "provisional"
    if not sender.agents:
        return "provisional" if provisional else "declared"
    if record.agent_id in sender.agents:
        return "bound"
    own = [agent for agent in sender.agents if agent.startswith(f"{record.agent_id}/")]
    if provisional and own:
        if len(sender.agents) > 1:
            return "provisional"
        record.agent_id = own[0]
        return "bound"
    raise Rejected(
        f"agent_id: this API key is not tied to {excerpt(record.agent_id)}; send with that agent's key"
    )


def _wire(limits: EdgeSettings) -> Any:
    """The record as it may stand on the wire: limits in characters, attributes of any type."""
    name_limit = msgspec.Meta(max_length=limits.max_name_bytes)
    several = msgspec.Meta(max_length=limits.max_attributes)
    required = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.max_name_bytes)]
    fields: list[tuple[Any, ...]] = []
    for column in COLUMNS:
        kind: Any = column.kind.python
        if column.values:
            kind = Literal[column.values]
        elif column.kind is Kind.TIMESTAMP:
            kind = Annotated[datetime, msgspec.Meta(tz=True)]
        elif column.kind is Kind.INTEGER:
            kind = Annotated[int, _INT64]
        elif column.kind is Kind.LIST:
            kind = Annotated[list[str], several]
        elif column.kind is Kind.MAP:
            kind = Annotated[dict[str, Any], several]
        elif kind is str and column.name not in TEXTS:
            kind = Annotated[str, name_limit]
        if column.name == "agent_id":
            fields.append((column.name, required))
        elif column.required and column.name != "event_id":
            fields.append((column.name, kind))
        else:
            fields.append((column.name, kind | None, None))
    return msgspec.defstruct(
        "Wire", fields, bases=(Record,), kw_only=True, gc=False, forbid_unknown_fields=True
    )


def _unique(raw: bytes) -> None:
    try:
        refuse_repeats(raw)
    except RepeatedKeyError as error:
        raise Rejected(f"the key {excerpt(error.key)} stands twice in one object; send it once") from None
    except RecursionError as error:
        raise Rejected(malformed(error)) from None


def _fits(text: str, limit: int) -> bool:
    return len(text) * 4 <= limit or len(text.encode()) <= limit


def _cut(text: str, limit: int) -> str:
    return text if _fits(text, limit) else text.encode()[:limit].decode(errors="ignore")
