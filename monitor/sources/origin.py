"""What a resource says for all its records: read once, as one resource stands above thousands of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monitor.sources.mapping import Common
from monitor.sources.picking import MOST_NAME
from monitor.sources.reading import text

UNKNOWN_SERVICE = "unknown_service"
"""The service of a record that names none (OTel resource conventions, service.name)."""

MOST_RESOURCE = 4096
"""Characters of its resource that an event keeps: a resource is sent once and kept in each event."""

_AROUND = 32
"""Characters that an attribute takes beside its name and its value."""

LEFT_OUT = "resource.left_out"
"""Attribute that counts the resource's attributes beyond ``MOST_RESOURCE``."""

SCOPE_LEFT_OUT = "span.scope.left_out"
"""The same for the attributes of the scope, which is sent once for thousands of records too."""

RESOURCE, SCOPE = "resource.", "span.scope."
"""Before the names that their attributes have in an event."""


@dataclass(slots=True)
class Kept:
    """Attributes as every event keeps them, by the name there, and how many found no room."""

    kept: dict[str, str] = field(default_factory=dict)
    left_out: int = 0


@dataclass(slots=True)
class Origin:
    """A resource: its service, its attributes, and those as an event keeps them, by the name there."""

    service: str
    attributes: dict[str, Any]
    kept: dict[str, str]
    left_out: int
    scopes: dict[int, Kept] = field(default_factory=dict)

    def scope(self, attributes: dict[str, Any]) -> Kept:
        """What an event keeps of its scope's attributes. They must live as long as this does."""
        known = self.scopes.get(id(attributes))
        if known is None:
            known = self.scopes[id(attributes)] = within(attributes, SCOPE)
        return known


class Origins:
    """The resources of one request, each read when it is first met."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._known: dict[int, Origin] = {}

    def of(self, resource: dict[str, Any]) -> Origin:
        """What the resource says. It must live as long as this does."""
        origin = self._known.get(id(resource))
        if origin is None:
            origin = self._known[id(resource)] = self._read(resource)
        return origin

    def _read(self, resource: dict[str, Any]) -> Origin:
        said = within(resource, RESOURCE)
        return Origin(self._service(resource), resource, said.kept, said.left_out)

    def _service(self, resource: dict[str, Any]) -> str:
        for name in self._common.service:
            service = resource.get(name)
            # SDKs fill in unknown_service:<executable>, which is not the same twice.
            if isinstance(service, str) and service not in self._common.absent and len(service) <= MOST_NAME:
                return UNKNOWN_SERVICE if service.startswith(UNKNOWN_SERVICE) else service
        return UNKNOWN_SERVICE


def within(attributes: dict[str, Any], prefix: str) -> Kept:
    """As many of the attributes as ``MOST_RESOURCE`` allows, with the prefix before their names."""
    found, room = Kept(), MOST_RESOURCE
    for name, value in attributes.items():
        said = text(value)
        size = len(name) + len(said) + _AROUND
        if size > room:
            found.left_out += 1
            continue
        room -= size
        found.kept[prefix + name] = said
    return found
