"""Names and values of the simulated company, all from the seed."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

FIRST = (
    "Mara",
    "Jonas",
    "Aylin",
    "Pedro",
    "Ingrid",
    "Tomasz",
    "Noor",
    "Elise",
    "Kofi",
    "Hanna",
    "Luca",
    "Priya",
)
LAST = (
    "Lindqvist",
    "Okafor",
    "Brandt",
    "Silva",
    "Yilmaz",
    "Novak",
    "Haddad",
    "Moreau",
    "Tanaka",
    "Rossi",
    "Iyer",
)
WORDS = (
    "amber",
    "cedar",
    "harbour",
    "linden",
    "quartz",
    "meadow",
    "copper",
    "birch",
    "falcon",
    "granite",
    "willow",
)
TRADES = (
    "logistics",
    "paper",
    "tools",
    "optics",
    "foods",
    "textiles",
    "motors",
    "energy",
    "print",
    "freight",
)
CITIES = (
    "oslo",
    "porto",
    "lyon",
    "graz",
    "turin",
    "ghent",
    "malmo",
    "split",
    "bergen",
    "leipzig",
    "bilbao",
    "cork",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
SERVICES = ("orders-api", "billing-api", "search-index", "mail-relay", "shop-front", "ledger-sync")
METRICS = ("revenue", "returns", "orders", "active_customers", "delivery_days")
MODULES = ("pricing", "checkout", "ledger", "shipping", "invoices", "sessions", "reports")
LABELS = ("delivery", "invoice", "complaint", "contract", "question", "technical")


class World:
    """One company: its people, partners, hosts. Same random source, same company."""

    def __init__(self, rng: Random) -> None:
        names = rng.sample([f"{first} {last}" for first in FIRST for last in LAST], 20)
        self.domain = f"{rng.choice(WORDS)}-{rng.choice(TRADES)}.example"
        self.people = names[:10]
        self.customers = names[10:]
        self.partners = [f"{w.title()} {rng.choice(TRADES).title()}" for w in rng.sample(WORDS, 9)]
        self.hosts = [f"app{rng.randint(1, 40):02d}.{self.domain}" for _ in range(6)]
        self.repos = [f"{word}-{rng.choice(('service', 'web', 'jobs'))}" for word in rng.sample(WORDS, 4)]
        self.cities = rng.sample(CITIES, len(CITIES))


def slug(name: str) -> str:
    """A name as it stands in addresses."""
    return name.lower().replace(" ", ".")


def _number(prefix: str, digits: int) -> Callable[[World, Random], str]:
    return lambda _world, rng: f"{prefix}{rng.randrange(10 ** (digits - 1), 10**digits)}"


MAKERS: dict[str, Callable[[World, Random], Any]] = {
    "invoice": _number("INV-", 5),
    "order": _number("PO-", 6),
    "ticket": _number("T-", 5),
    "entry": _number("R-", 7),
    "document": _number("D-", 6),
    "employee": _number("E-", 4),
    "cost_centre": _number("CC-", 3),
    "pull": lambda _world, rng: rng.randint(200, 2_000),
    "count": lambda _world, rng: rng.randint(2, 60),
    "amount": lambda _world, rng: round(rng.lognormvariate(5.6, 0.7), 2),
    "person": lambda world, rng: rng.choice(world.people),
    "customer": lambda world, rng: rng.choice(world.customers),
    "partner": lambda world, rng: rng.choice(world.partners),
    "host": lambda world, rng: rng.choice(world.hosts),
    "repo": lambda world, rng: rng.choice(world.repos),
    "domain": lambda world, _rng: world.domain,
    "weekday": lambda _world, rng: rng.choice(WEEKDAYS),
    "service": lambda _world, rng: rng.choice(SERVICES),
    "metric": lambda _world, rng: rng.choice(METRICS),
    "module": lambda _world, rng: rng.choice(MODULES),
    "label": lambda _world, rng: rng.choice(LABELS),
    "table": lambda _world, rng: "fact_" + rng.choice(METRICS),
}


class Draw:
    """The values of one session: each name is drawn once and then stays."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.values: dict[str, Any] = {}

    def value(self, name: str) -> Any:
        """The session's value of ``name``; addresses follow from the person or company."""
        if name not in self.values:
            self.values[name] = self._make(name)
        return self.values[name]

    def _make(self, name: str) -> Any:
        match name:
            case "person_mail":
                return f"{slug(self.value('person'))}@{self.world.domain}"
            case "customer_mail":
                return f"{slug(self.value('customer'))}@post.example"
            case "partner_domain":
                return slug(self.value("partner")).replace(".", "-") + ".example"
            case "partner_mail":
                return f"office@{self.value('partner_domain')}"
        return MAKERS[name](self.world, self.rng)

    def fill(self, template: Any) -> Any:
        """``template`` with every ``$name`` replaced; a value alone keeps its type."""
        if isinstance(template, str):
            if template.startswith("$") and template[1:].isidentifier():
                return self.value(template[1:])
            return re.sub(r"\$(\w+)", lambda found: str(self.value(found[1])), template)
        if isinstance(template, dict):
            return {key: self.fill(item) for key, item in template.items()}
        if isinstance(template, list):
            return [self.fill(item) for item in template]
        return template
