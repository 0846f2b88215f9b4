"""What a site gives to its rules: the fields of its events, its lists, its field names."""

from __future__ import annotations

from dataclasses import dataclass

from detectors.base import Fields
from detectors.sigma.expand import Lists
from detectors.sigma.mapping import Mapping


@dataclass(frozen=True)
class Site:
    """``lists`` fill placeholders by name; ``mapping`` turns foreign field names into ours."""

    fields: Fields
    lists: Lists
    mapping: Mapping
