"""The words of a text, and those of a name, brought to a form in which they can be compared.

Only English endings are cut; of any other language a word matches itself.
"""

from __future__ import annotations

import functools
import re

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")

_EMPTY = frozenset({
    "a", "all", "an", "and", "by", "do", "for", "from", "get", "id", "in", "is", "make", "my", "new",
    "of", "on", "or", "set", "the", "to", "with",
})  # fmt: skip


def words(text: str) -> list[str]:
    """The words that say something, in order; also those inside a name.

    >>> words("sendMoney"), words("Sending the files"), words("überweisung")
    (['send', 'money'], ['send', 'file'], ['überweisung'])
    """
    return [_stem(word) for word in map(str.lower, _WORDS.findall(text)) if word not in _EMPTY]


@functools.lru_cache(maxsize=4_096)
def name_words(name: str) -> frozenset[str]:
    """The words of a tool's name."""
    return frozenset(words(name))


def first_word(name: str) -> str:
    """The first word of the last part of a dotted or slashed name, as it stands; empty for none.

    >>> first_word("mail.getInbox"), first_word("delete_file")
    ('get', 'delete')
    """
    found = _WORDS.search(re.split(r"[./:]", name)[-1])
    return found.group().lower() if found else ""


def _stem(word: str) -> str:
    if word.endswith("ing") and len(word) > 6:
        return word[:-3]
    if word.endswith("ed") and len(word) > 5:
        return word[:-2]
    return word[:-1] if word.endswith("s") and len(word) > 3 else word
