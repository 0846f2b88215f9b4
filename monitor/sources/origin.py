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


@dataclass(slots=True)
class Origin:
    """A resource: its service, its attributes, and those as an event keeps them, by the name there."""

    service: str
    attributes: dict[str, Any]
    kept: dict[str, str] = field(default_factory=dict)
    left_out: int = 0


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
        origin = Origin(self._service(resource), resource)
        room = MOST_RESOURCE
        for name, value in resource.items():
            said = text(value)
            size = len(name) + len(said) + _AROUND
            if size > room:
                origin.left_out += 1
                continue
            room -= size
            origin.kept[name] = said
        return origin

    def _service(self, resource: dict[str, Any]) -> str:
        for name in self._common.service:
            service = resource.get(name)
            # SDKs fill in unknown_service:<executable>, which is not the same twice.
            if isinstance(service, str) and service not in self._common.absent and len(service) <= MOST_NAME:
                return UNKNOWN_SERVICE if service.startswith(UNKNOWN_SERVICE) else service
        return UNKNOWN_SERVICE
