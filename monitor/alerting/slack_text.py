"""An alert in Slack's Block Kit. Whatever an agent may have written is shown, and never interpreted.

Text objects are ``plain_text``: no mentions, links or formatting. Slack's three control
characters are escaped all the same, as its reference asks for in every text.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from monitor.store.state import Alert

ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

HEADER = 150
FIELD = 200
REASON = 1_500
REPLY = 3_000
"""Most characters of a part; Slack allows 150 in a header and 3,000 in a text."""

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that could break a line, hide or turn around what stands beside them."""


def shown(text: str, limit: int) -> str:
    """``text`` on one line, escaped, at most ``limit`` characters long after escaping."""
    visible = "".join(" " if unicodedata.category(char) in UNSEEN else char for char in text[: limit * 2])
    escaped = [ENTITIES.get(char, char) for char in " ".join(visible.split())]
    if sum(map(len, escaped)) <= limit:
        return "".join(escaped)
    kept, room = [], limit - 1
    for piece in escaped:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def head(alert: Alert, console_url: str) -> dict[str, Any]:
    """Return ``text`` and ``blocks`` of the alert's message, as the alert stands now."""
    title = shown(f"[{alert.level.upper()}] {alert.title}", HEADER)
    facts = [
        ("Agent", alert.agent_id),
        ("Session", alert.session_id or "none"),
        ("Environment", alert.environment or "not given"),
        ("Rule", alert.rule_id),
        ("Status", alert.status.replace("_", " ") + (f", {alert.verdict}" if alert.verdict else "")),
        ("Owner", alert.owner or "nobody"),
    ]
    return {
        "text": f"{title}: {shown(alert.reason, REASON)}",
        "blocks": [
            {"type": "header", "text": _plain(title)},
            {"type": "section", "text": _plain(shown(alert.reason, REASON))},
            {
                "type": "section",
                "fields": [_plain(f"{name}: {shown(value, FIELD)}") for name, value in facts],
            },
            {
                "type": "context",
                "elements": [
                    {
                        "type": "mrkdwn",
                        "text": f"<{console_url}/alerts/{alert.id}|Open in Watchkeeper>",
                        "verbatim": True,
                    }
                ],
            },
        ],
    }


def reply(text: str) -> dict[str, Any]:
    """Return ``text`` and ``blocks`` of a message in the alert's thread."""
    words = shown(text, REPLY - 1)
    return {"text": words, "blocks": [{"type": "section", "text": _plain(words)}]}


def _plain(escaped: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": escaped, "emoji": False}
