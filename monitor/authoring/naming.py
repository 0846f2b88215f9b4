"""Finding a rule by what a person calls it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from detectors.sigma import Rule, RuleError, RuleSet
from detectors.sigma.evidence import clean
from monitor import rulebook
from monitor.settings import Settings


class UnknownRuleError(ValueError):
    """No rule, or not just one, is called so."""


def named_rule(rules: RuleSet, name: str) -> Rule:
    """The rule with this id, name or title (or the beginning of an id). Raises UnknownRuleError."""
    exact = rules.get(name)
    if exact is not None:
        return exact
    wanted = name.casefold()
    found = [rule for rule in rules.rules if rule.title.casefold() == wanted]
    found = found or [rule for rule in rules.rules if len(wanted) >= 6 and rule.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownRuleError(f"several rules are called {clean(name, 80)!r}: {_called(found)}; give an id")
    titles = {rule.title.casefold(): rule for rule in rules.rules}
    names = {rule.key.casefold(): rule for rule in rules.rules}
    near = difflib.get_close_matches(wanted, [*names, *titles], 3, 0.6)
    meant = {rule.id: rule for rule in (names.get(one) or titles[one] for one in near)}
    hint = f"; did you mean {_called([*meant.values()])}?" if meant else ""
    raise UnknownRuleError(f"no rule has the id, name or title {clean(name, 80)!r}{hint}")


def rule_and_set(settings: Settings, called: str, folders: Sequence[Path]) -> tuple[Rule, RuleSet]:
    """The rule that ``called`` names, among those of ``folders`` or of the settings; or the rule in
    the YAML file ``called``, which may refer to the others.

    Raises RuleError, or UnknownRuleError.
    """
    file = Path(called)
    if file.suffix not in (".yml", ".yaml") or not file.is_file():
        rules = rulebook.load(settings, folders)
        return named_rule(rules, called), rules
    rules = _with_file(settings, file, folders)
    here = [rule for rule in rules.rules if Path(rule.path).resolve() == file.resolve()]
    reporting = [rule for rule in here if rule.generate or rule.missing] or here
    if len(reporting) != 1:
        told = f"has {len(reporting)} rules: {_called(reporting)}; give an id, and the file as --rules"
        raise UnknownRuleError(f"{file} {told if reporting else 'has no rule'}")
    return reporting[0], rules


def _with_file(settings: Settings, file: Path, folders: Sequence[Path]) -> RuleSet:
    """The file's rules alone where it needs no others."""
    if not folders:
        try:
            return rulebook.load(settings, [file])
        except RuleError as error:
            if not all("which is not loaded" in reason for _, reason in error.faults):
                raise
    paths = [*(folders or settings.detection.rules)]
    inside = any(file.resolve().is_relative_to(path.resolve()) for path in paths)
    return rulebook.load(settings, paths if inside else [*paths, file])


def _called(rules: Sequence[Rule]) -> str:
    return ", ".join(f"{clean(rule.title, 80)} ({rule.id})" for rule in rules[:5])
