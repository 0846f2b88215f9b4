r"""Regular expressions as ClickHouse must be asked, so that they find what the stream finds.

Both search with RE2 (`search`), so that classes (``\d``, ``\w``, ``\s``), ``\b`` and the folding of
letters are the same. Three things differ: ``.`` takes a line's end in ClickHouse unless told
otherwise; an expression may take less memory there; and before it asks RE2, ClickHouse looks for a
text that the expression needs, which it finds out wrongly where ``?``, ``*`` or ``{`` follows a letter
beyond ASCII (it takes back one byte of the letter) or ``\Q``.
"""

from __future__ import annotations

import functools
import re

import re2

from detectors.sigma.search import compiled
from detectors.sigma.sql_text import NoSql

MEMORY = 8 << 20
"""Bytes that ClickHouse gives one expression: RE2's own default."""


_MISREAD = re.compile(r"[^\x00-\x7f](?:\(\?[imsU-]*\))*[?*{]|\\Q")

_NOTHING = r"[^\x{0}-\x{10FFFF}]"
"""Matches no letter: with such an alternative ClickHouse looks for no text beforehand, and is slower."""


@functools.lru_cache(maxsize=4_096)
def expression(pattern: str) -> str:
    """The expression for ClickHouse's ``match``. Raises NoSql for what is too large there."""
    asked = f"(?-s){_NOTHING}|{pattern}" if _MISREAD.search(pattern) else f"(?-s){pattern}"
    options = re2.Options()
    options.max_mem = MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        re2.compile(asked, options)
    except re2.error:
        compiled(asked)
        raise NoSql(f"ClickHouse takes no regular expression as large as {pattern[:80]!r}") from None
    return asked
