"""Watches the watchers: which faults began, go on and are over, from one look to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from detectors.base import LEVELS, Finding
from detectors.wording import plain
from monitor.alerting.conditions import conditions
from monitor.alerting.kinds import KINDS
from monitor.alerting.look import Condition, Look
from monitor.alerting.own import CONDITION, own_finding
from monitor.alerting.signs import SECOND, Growth, Sign
from monitor.settings import Settings

MOST_OF_A_KIND = 5
"""Faults of one kind that are told one by one; all further ones are one alert together."""

SEVERAL = "several"
"""What that alert is about."""

SHOWN = 20

LONGEST_CALM_US = 900 * SECOND
FLAPPING_US = 3600 * SECOND
"""A fault that comes back within this time must stay away twice as long to count as over."""

MAX_REMEMBERED = 1_000

PAUSE_US = 5 * SECOND
"""A watch that did not look for so long was asleep, and all others perhaps with it."""

Slot = tuple[str, str]
"""A kind of fault, and whose it is: one open alert."""


@dataclass(frozen=True)
class Recovery:
    """A fault is over. ``finding`` names the alert; it lasted from ``since`` to ``until`` (µs)."""

    finding: Finding
    since: int
    until: int


@dataclass
class Fault:
    """A fault that holds, or held until a moment ago; times in microseconds."""

    condition: Condition
    since: int
    seen: int
    told: int
    level: str


@dataclass(frozen=True)
class Told:
    """What a look has to say: findings to file, in order, and faults that are over."""

    findings: tuple[Finding, ...] = ()
    recovered: tuple[Recovery, ...] = ()


class SelfWatch:
    """Turns heartbeats into findings about the product itself. No clock, no I/O of its own.

    ``since`` is when it begins, in wall time (µs). ``predecessor`` is the heartbeat that an
    earlier detection process left behind.
    """

    def __init__(self, settings: Settings, since: int, predecessor: Sign | None = None) -> None:
        self._settings = settings
        self._limits = settings.own_alerts
        self._since = since
        self._awake_since = self._last = since
        self._predecessor = predecessor
        self._known: dict[str, int] = {}
        self._growth = Growth(round(self._limits.window_seconds * SECOND))
        self._refusing_until = 0
        self._faults: dict[Slot, Fault] = {}
        self._once: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._flaps: OrderedDict[Slot, tuple[int, int]] = OrderedDict()

    def resume(self, failing: Mapping[Slot, int]) -> None:
        """Faults that alerts still call failing, and since when: they may be over by now."""
        for (kind, about), since in failing.items():
            known = Condition(kind, LEVELS[-1], "", about)
            self._faults[kind, about] = Fault(known, since, self._since, self._since, LEVELS[-1])

    def look(self, signs: Mapping[str, Sign], at: int, revoked: frozenset[str] = frozenset()) -> Told:
        """What is to be told at wall time ``at`` (µs)."""
        if at - self._last > PAUSE_US or at < self._last:
            self._awake_since = at
        self._last = at
        signs = {name: sign for name, sign in signs.items() if sign.beat_at >= self._since}
        self._note_refusals(signs)
        self._know_predecessor(signs)
        look = Look(
            signs,
            at,
            since=self._since,
            awake_since=self._awake_since,
            known=self._known,
            growth=self._growth,
            settings=self._settings,
            revoked=revoked,
            refusing_until=self._refusing_until,
        )
        findings: list[Finding] = []
        lasting: list[Condition] = []
        for condition in conditions(look):
            if not condition.once:
                lasting.append(condition)
            elif self._is_news(condition):
                findings.append(_finding(condition))
        self._known = {name: sign.pid for name, sign in signs.items()}
        for condition in self._folded(lasting):
            findings += self._holds(condition, at)
        return Told(tuple(findings), tuple(self._over(look)))

    def _note_refusals(self, signs: Mapping[str, Sign]) -> None:
        edge = signs.get("edge")
        pressure = (edge.detail.get("pressure") or {}) if edge else {}
        if edge and (pressure.get("spool_full") or pressure.get("disk_fault")):
            self._refusing_until = edge.beat_at

    def _know_predecessor(self, signs: Mapping[str, Sign]) -> None:
        """The detection before this one ended unasked where the same edge outlived it."""
        edge, former = signs.get("edge"), self._predecessor
        if edge is not None and former is not None:
            if edge.started_at < former.beat_at:
                self._known["detection"] = former.pid
            self._predecessor = None

    def _is_news(self, condition: Condition) -> bool:
        event = (condition.kind, condition.about, condition.once)
        news = event not in self._once
        self._once[event] = None
        if len(self._once) > MAX_REMEMBERED:
            self._once.popitem(last=False)
        return news

    def _folded(self, lasting: Iterable[Condition]) -> list[Condition]:
        """The conditions, those too many of their kind as one; who has an alert already keeps it."""
        by_kind: dict[str, list[Condition]] = {}
        for condition in lasting:
            by_kind.setdefault(condition.kind, []).append(condition)
        folded: list[Condition] = []
        for kind, found in by_kind.items():
            found.sort(key=lambda one: (kind, one.about) not in self._faults)
            folded += found[:MOST_OF_A_KIND]
            if rest := found[MOST_OF_A_KIND:]:
                folded.append(_together(kind, rest, len(found)))
        return folded

    def _holds(self, condition: Condition, at: int) -> list[Finding]:
        """File a fault when it begins, when it grows worse, and from time to time while it lasts."""
        slot = (condition.kind, condition.about)
        fault = self._faults.get(slot)
        if fault is None:
            fault = self._faults[slot] = Fault(condition, at, at, at, condition.level)
        else:
            fault.condition, fault.seen = condition, at
            worse = LEVELS.index(condition.level) > LEVELS.index(fault.level)
            if not worse and at - fault.told < self._limits.repeat_seconds * SECOND:
                return []
            fault.told = at
            fault.level = max(fault.level, condition.level, key=LEVELS.index)
        lasted = (at - fault.since) / SECOND
        return [_finding(condition, since=fault.since, lasted=lasted)]

    def _over(self, look: Look) -> list[Recovery]:
        """The faults that have stayed away for long enough, longer where they often come back.

        A fault of which nobody tells, because the process that would is silent, is not over.
        """
        over, at = [], look.at
        for slot, fault in list(self._faults.items()):
            teller = KINDS[slot[0]].teller
            if teller and look.alive(teller) is None:
                continue
            flaps, last = self._flaps.get(slot, (0, 0))
            flaps = flaps if at - last <= FLAPPING_US else 0
            calm = min(self._limits.calm_seconds * SECOND * 2**flaps, LONGEST_CALM_US)
            if at - fault.seen < calm or fault.seen == at:
                continue
            del self._faults[slot]
            self._flaps[slot] = (flaps + 1, at)
            self._flaps.move_to_end(slot)
            if len(self._flaps) > MAX_REMEMBERED:
                self._flaps.popitem(last=False)
            over.append(Recovery(_finding(fault.condition), fault.since, fault.seen))
        return over


def _together(kind: str, rest: list[Condition], number: int) -> Condition:
    """Many faults of a kind as one, the worst of them speaking for all."""
    worst = max(rest, key=lambda one: LEVELS.index(one.level))
    names = sorted(plain(one.about, 80) for one in rest)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    told = f"{number:,} at once, among them {', '.join(names[:SHOWN])}{more}. One of them: {worst.reason}"
    return replace(worst, about=SEVERAL, reason=told, evidence={"number": number, "some": names[:SHOWN]})


def _finding(condition: Condition, since: int = 0, lasted: float = 0.0) -> Finding:
    evidence = dict(condition.evidence)
    if not condition.once:
        evidence |= {CONDITION: "failing", "since": since}
    going_on = f" It has lasted {lasted:,.0f} s." if lasted >= 1 else ""
    return own_finding(
        condition.kind,
        KINDS[condition.kind].title,
        condition.reason + going_on,
        condition.level,
        about=condition.about,
        once=condition.once,
        evidence=evidence,
    )
