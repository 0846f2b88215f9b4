"""Rule files as YAML documents, each with its own text; every fault of every file is collected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sigma.exceptions import SigmaError
from sigma.rule.base import SigmaYAMLLoader, check_alias_expansion

from detectors.sigma.refusal import RefusedError

Fault = tuple[str, str]
"""A file, and what is wrong in it."""

OWN_KEYS = ("tests", "runbook", "response", "watchkeeper")
"""What Watchkeeper adds to Sigma, each a top-level key of a rule; see docs/rules.md."""

SIGMA_KEYS = (
    *("title", "id", "name", "taxonomy", "related", "status", "description", "license", "references"),
    *("tags", "author", "date", "modified", "logsource", "detection", "correlation", "filter", "fields"),
    *("falsepositives", "level", "scope"),
)

MAX_FILE_BYTES = 1_000_000
_SEPARATOR = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """One YAML document of a rule file. ``kind`` is rule, correlation, filter or lists."""

    path: str
    text: str
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is, by its keys."""
        if set(self.content) == {"lists"}:
            return "lists"
        return next((kind for kind in ("correlation", "filter") if kind in self.content), "rule")

    @property
    def name(self) -> str:
        """What a fault calls it."""
        given = self.content.get("title") or self.content.get("id")
        return str(given or f"{self.kind} without a title")[:100]


def read(paths: Sequence[Path], faults: list[Fault]) -> list[Document]:
    """The documents of the files, and of the ``*.yml`` below the folders, in ``paths``."""
    found: list[Document] = []
    for path in _files(paths, faults):
        try:
            whole = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            faults.append((str(path), f"cannot be read as UTF-8 text: {error}"))
            continue
        if len(whole) > MAX_FILE_BYTES:
            faults.append((str(path), f"larger than {MAX_FILE_BYTES} characters: split it"))
            continue
        found += parse(str(path), whole, faults)
    return found


def parse(path: str, whole: str, faults: list[Fault]) -> Iterator[Document]:
    """The documents of one file's text. ``---`` at a line's start always separates."""
    for text in _SEPARATOR.split(whole):
        try:
            # A safe loader that also refuses a key written twice.
            content = yaml.load(text, SigmaYAMLLoader)  # noqa: S506
            if content is None:
                continue
            if not isinstance(content, dict):
                raise RefusedError("a rule is a mapping of keys to values")
            check_alias_expansion(content)
        except (yaml.YAMLError, SigmaError, RefusedError) as error:
            faults.append((path, f"not valid YAML: {' '.join(str(error).split())[:300]}"))
        else:
            yield Document(path, text.strip() + "\n", content)


def _files(paths: Sequence[Path], faults: list[Fault]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.yml"))
        elif path.is_file():
            yield path
        else:
            faults.append((str(path), "no such file or folder: correct the path of the rules"))


def check_keys(document: Document) -> None:
    """Raise RefusedError for a key that nobody reads and that looks like one that is."""
    if "action" in document.content:
        raise RefusedError("collections (action:) belong to an older Sigma: write each rule out")
    known = (*SIGMA_KEYS, *OWN_KEYS)
    for key in document.content:
        meant = [] if key in known else difflib.get_close_matches(str(key), known, 1, 0.8)
        if meant:
            raise RefusedError(f"unknown key {str(key)[:60]!r}: did you mean {meant[0]!r}?")


def check_lists(document: Document) -> None:
    """Raise RefusedError where a ``lists:`` document is not names with lists of values."""
    lists = document.content["lists"]
    right = isinstance(lists, dict) and all(
        isinstance(name, str)
        and isinstance(values, list)
        and all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values)
        for name, values in lists.items()
    )
    if not right:
        raise RefusedError("lists: each name has a list of texts or numbers")
