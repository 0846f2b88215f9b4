"""Built-in detectors of secrets and personal data: what they look like, and how sure that is.

Each has hints, of which one must stand in a text before the expression is tried at all. The
expressions have no nested repetition: what agents write is hostile, and must not cost time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SECRETS = "secrets"
PERSONAL = "personal"
"""Names of the two groups, usable wherever a detector's name is."""


@dataclass(frozen=True)
class Kind:
    """One kind of value. Group 1 of ``pattern``, where there is one, is the value; else all of it.

    ``hints`` are looked for in the lower-cased text; none means that the pattern is always tried.
    ``plain`` brings equal values written differently to one form, for fingerprints.
    """

    name: str
    group: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    valid: Callable[[str], bool] = lambda _value: True
    plain: Callable[[str], str] = str


def luhn(value: str) -> bool:
    """Whether the digits are a payment card's: ISO/IEC 7812-1, annex B."""
    digits = [int(char) for char in value if char.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def mod97(value: str) -> bool:
    """Whether the check digits are an IBAN's: ISO 13616, ISO/IEC 7064."""
    compact = compacted(value)
    if not 15 <= len(compact) <= 34:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def compacted(value: str) -> str:
    """Letters and digits alone, in upper case."""
    return "".join(char for char in value if char.isalnum()).upper()


def social(value: str) -> bool:
    """Whether the number can have been issued (SSA: no 000, 666 or 9xx area, no 00 group, no 0000)."""
    area, group, serial = value.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def mixed(value: str) -> bool:
    """Whether it looks drawn at random: letters and digits, and enough different ones."""
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value) and len(set(value)) >= 8


def _kind(name: str, group: str, hints: str, pattern: str, **more: Callable[[str], object]) -> Kind:
    return Kind(name, group, tuple(hints.split()), re.compile(pattern), **more)  # type: ignore[arg-type]


_EDGE = r"(?<![A-Za-z0-9_])"
_END = r"(?![A-Za-z0-9_])"

KINDS: tuple[Kind, ...] = (
    _kind(
        "private_key",
        SECRETS,
        "-----begin",
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\:,.-]{0,20000}?"
        r"(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    ),
    _kind("aws_access_key", SECRETS, "akia asia", _EDGE + r"(?:AKIA|ASIA)[A-Z0-9]{16}" + _END),
    _kind(
        "aws_secret_key",
        SECRETS,
        "aws secret_access secretaccess",
        r"(?i:aws|secret_?access_?key)[^\n]{0,40}?(?<![A-Za-z0-9/+=])([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        valid=mixed,
    ),
    _kind("google_api_key", SECRETS, "aiza", _EDGE + r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _kind(
        "github_token",
        SECRETS,
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        _EDGE + r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
    ),
    _kind("gitlab_token", SECRETS, "glpat-", _EDGE + r"glpat-[A-Za-z0-9_-]{20,}"),
    _kind("slack_token", SECRETS, "xox xapp-", _EDGE + r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}"),
    _kind("stripe_key", SECRETS, "_live_ _test_", _EDGE + r"[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    _kind("llm_api_key", SECRETS, "sk-", _EDGE + r"sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,}"),
    _kind("watchkeeper_key", SECRETS, "wk_ whsec_", _EDGE + r"(?:wk_|whsec_)[A-Za-z0-9_+/=-]{20,}"),
    _kind(
        "jwt",
        SECRETS,
        "eyj",
        _EDGE + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{0,}",
    ),
    _kind(
        "url_password",
        SECRETS,
        "://",
        r"[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'\\]{0,100}:([^\s/@\"'\\]{1,200})@",
    ),
    _kind("bearer_token", SECRETS, "bearer", r"(?i:bearer)\s{1,3}([A-Za-z0-9_.~+/=-]{16,})"),
    _kind(
        "assigned_secret",
        SECRETS,
        "pass secret token api_key apikey api-key credential",
        r"(?i:password|passwd|passphrase|secret|token|api[_-]?key|credential)s?[\"'\\]{0,3}\s{0,3}[:=]\s{0,3}[\"'\\]{0,3}"
        r"([^\s\"'\\,;&}\]\[{)(]{6,200})",
    ),
    _kind(
        "email",
        PERSONAL,
        "@",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
        plain=str.lower,
    ),
    _kind(
        "iban",
        PERSONAL,
        "",
        r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        valid=mod97,
        plain=compacted,
    ),
    _kind(
        "payment_card",
        PERSONAL,
        "",
        r"(?<![0-9A-Za-z.])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])",
        valid=luhn,
        plain=compacted,
    ),
    _kind("us_ssn", PERSONAL, "-", r"(?<![0-9-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9-])", valid=social),
    _kind(
        "phone",
        PERSONAL,
        "+",
        r"(?<![0-9A-Za-z+])\+[1-9][0-9]{0,2}(?:[ .()/-]{0,2}[0-9]){6,12}(?![0-9])",
        plain=compacted,
    ),
    _kind(
        "ip_address",
        "network",
        "",
        r"(?<![0-9.])(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(?![0-9.])",
    ),
)

BY_NAME = {kind.name: kind for kind in KINDS}
GROUPS = frozenset(kind.group for kind in KINDS)
