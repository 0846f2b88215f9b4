"""Built-in detectors of secrets and personal data: what they look like, and how sure that is.

The expressions have no nested repetition, and begin with something rare or at the edge of a word:
what agents write is hostile, and must not cost time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from monitor.sources.redaction.checks import address, card, compacted, iban, mixed, social

SECRETS = "secrets"
PERSONAL = "personal"
NETWORK = "network"
"""Names of the groups, usable wherever a detector's name is."""


@dataclass(frozen=True)
class Kind:
    """One kind of value. Group 1 of ``pattern``, where there is one, is the value; else all of it.

    Only a text with one of its signs is searched: ``hints`` as they stand, ``words`` in any case, or
    ``shapes`` (signs.py). ``fit`` gives the part of a match, from its beginning, that is a value;
    empty where none is, and the search goes on within the match: its length must be bounded then.
    ``plain`` brings equal values written differently to one form.
    """

    name: str
    group: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    shapes: tuple[bytes, ...] = ()
    fit: Callable[[str], str] = str
    plain: Callable[[str], str] = str


def _kind(
    name: str,
    group: str,
    pattern: str,
    hints: str = "",
    words: str = "",
    shapes: str = "",
    fit: Callable[[str], str] = str,
    plain: Callable[[str], str] = str,
) -> Kind:
    signs = tuple(hints.split()), tuple(words.split()), tuple(shapes.encode().split())
    return Kind(name, group, re.compile(pattern), *signs, fit, plain)


_EDGE = r"(?:(?<![A-Za-z0-9_])|(?<=%[0-9A-Fa-f]{2}))"
_END = r"(?![A-Za-z0-9_])"
_IS = r"[\"'\\]{0,8}\s{0,3}[:=]\s{0,3}[\"'\\]{0,8}"
"""What may stand between a name and its value, quoted however often."""

_OPTION = "".join(rf"|(?<=--[A-Za-z_-]{{{length}}})\s{{1,3}}" for length in (3, 5, 6, 7, 8, 10))
"""After the name of a command's option a space is enough: ``--password VALUE``."""

KINDS: tuple[Kind, ...] = (
    _kind(
        "private_key",
        SECRETS,
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s\\:,.]|-(?!----)){0,20000}"
        r"(?:-----END [A-Z ]{0,30}-----)?",
        hints="-----BEGIN",
    ),
    _kind("aws_access_key", SECRETS, r"(?:AKIA|ASIA)[A-Z0-9]{16}" + _END, hints="AKIA ASIA", fit=mixed),
    _kind(
        "aws_secret_key",
        SECRETS,
        r"(?i:aws|secret_?access_?key)[^\n]{0,40}?(?<![A-Za-z0-9/+=])([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        words="aws secret",
        fit=mixed,
    ),
    _kind("google_api_key", SECRETS, r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])", hints="AIza"),
    _kind("google_oauth", SECRETS, r"(?:GOCSPX-|ya29\.)[A-Za-z0-9_-]{20,}", hints="GOCSPX- ya29."),
    _kind(
        "github_token",
        SECRETS,
        r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
        hints="ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
    ),
    _kind(
        "gitlab_token",
        SECRETS,
        r"gl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_.-]{20,}",
        hints="glpat- gldt- glrt- glcbt- glptt-",
    ),
    _kind("slack_token", SECRETS, r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9-]{10,}", hints="xox xapp-"),
    _kind("slack_webhook", SECRETS, r"hooks\.slack\.com/(services/[A-Za-z0-9/_-]{20,})", hints="hooks.slack"),
    _kind("stripe_key", SECRETS, r"[sr]k_(?:live|test)_[A-Za-z0-9]{10,}", hints="k_live_ k_test_"),
    _kind(
        "llm_api_key",
        SECRETS,
        _EDGE + r"sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,200}",
        hints="sk-",
        fit=mixed,
    ),
    _kind("huggingface_token", SECRETS, r"hf_[A-Za-z0-9]{30,}", hints="hf_"),
    _kind("npm_token", SECRETS, r"npm_[A-Za-z0-9]{36}" + _END, hints="npm_"),
    _kind("sendgrid_key", SECRETS, r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", hints="SG."),
    _kind("watchkeeper_key", SECRETS, _EDGE + r"(?:wk_|whsec_)[A-Za-z0-9_+/=-]{20,}", hints="wk_ whsec_"),
    _kind(
        "jwt",
        SECRETS,
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        hints="eyJ",
    ),
    _kind(
        "url_password",
        SECRETS,
        r"://[^\s/:@\"'\\]{0,100}:([^\s/\"'\\]{1,200})@",
        hints="://",
    ),
    _kind(
        "authorization",
        SECRETS,
        r"(?i:authorization)" + _IS + r"(?i:basic|bearer|token|digest)\s{1,3}([A-Za-z0-9_.~+/=-]{6,})",
        words="authorization",
    ),
    _kind("bearer_token", SECRETS, r"(?i:bearer)\s{1,3}([A-Za-z0-9_.~+/=-]{16,})", words="bearer", fit=mixed),
    _kind(
        "assigned_secret",
        SECRETS,
        r"(?i:passwords?|passwd|passphrase|pwd|secrets?|token|(?:api|secret)[_-]?keys?|access[_-]?key"
        r"|account[_-]?key|credentials?)(?:" + _IS + _OPTION + r")"
        r"([^\s\"'\\,;&}\]\[{]{6,})",
        words="pass pwd secret token api_key apikey api-key access_key accesskey access-key account_key "
        "accountkey account-key credential",
    ),
    _kind(
        "email",
        PERSONAL,
        r"(?<![\w.%+-])[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
        hints="@",
        plain=str.lower,
    ),
    _kind(
        "iban",
        PERSONAL,
        r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ \u00a0\u202f]?[A-Z0-9]{4}){2,7}"
        r"(?:[ \u00a0\u202f]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        shapes="AAdd",
        fit=iban,
        plain=compacted,
    ),
    _kind(
        "payment_card",
        PERSONAL,
        r"(?<![0-9A-Za-z.])(?:[0-9]{13,19}|[0-9]{4}(?:[ \u00a0\u202f-][0-9]{4}){2,3}"
        r"(?:[ \u00a0\u202f-][0-9]{1,4})?|[0-9]{4}[ \u00a0\u202f-][0-9]{6}[ \u00a0\u202f-][0-9]{4,5})"
        r"(?![0-9A-Za-z])",
        shapes="d" * 13,
        fit=card,
        plain=compacted,
    ),
    _kind(
        "us_ssn",
        PERSONAL,
        r"(?<![0-9-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9-])",
        shapes="d" * 9,
        fit=social,
    ),
    _kind(
        "phone",
        PERSONAL,
        r"(?<![0-9A-Za-z+])\+[1-9][0-9]{0,2}(?:[ \u00a0\u202f.()/-]{0,2}[0-9]){6,12}(?![0-9])"
        r"|(?<![0-9A-Za-z.-])\(?[2-9][0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?![0-9A-Za-z-])",
        shapes=f"+{'d' * 7} {'d' * 10}",
        plain=compacted,
    ),
    _kind(
        "ip_address",
        NETWORK,
        r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])"
        r"|(?<![0-9A-Za-z:.])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![0-9A-Za-z:])",
        hints=". :",
        fit=address,
        plain=str.lower,
    ),
)

BY_NAME = {kind.name: kind for kind in KINDS}
GROUPS = frozenset(kind.group for kind in KINDS)
