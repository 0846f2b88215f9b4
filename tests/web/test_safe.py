"""What an agent writes cannot act, hide or reorder what is around it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.web.safe import safe_plain, safe_text
from tests.web.seeding import HOSTILE


def test_markup_is_escaped_and_hidden_characters_are_named() -> None:
    shown = str(safe_text(HOSTILE))
    assert "<img" not in shown
    assert "</script>" not in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    assert ">U+202E<" in shown
    assert ">ESC<" in shown


@pytest.mark.parametrize(
    "char", ["\u200b", "\u2066", "\ufeff", "\u00ad", "\U000e0041", "\x07", "\x9b", "\u2028"]
)
def test_what_the_eye_cannot_see_is_shown_by_name(char: str) -> None:
    assert f"U+{ord(char):04X}" in safe_text(f"a{char}b")
    assert safe_plain(f"a{char}b") == f"a⟨U+{ord(char):04X}⟩b"


def test_ordinary_text_of_any_script_stays_as_it_is() -> None:
    for text in ("Rechnung über 5 €", "请审批付款", "دفع الفاتورة", "नमस्ते", "line\nbreak\ttab", "résumé 😀"):
        assert safe_plain(text) == text


def test_piled_up_marks_cannot_paint_over_other_lines() -> None:
    assert safe_plain("a" + "\u0301" * 50).count("\u0301") == 3


def test_long_text_is_cut_and_says_how_much_is_missing() -> None:
    assert safe_plain("x" * 500, 20) == "x" * 20 + "… (+480)"
    assert "480 more characters" in safe_text("x" * 500, 20)


@given(st.text())
def test_no_text_can_leave_its_element(text: str) -> None:
    shown = str(safe_text(text, 10_000))
    inside = re.sub(r'<span class="ctl" title="hidden character">(U\+[0-9A-F]{4,6}|ESC)</span>', "", shown)
    assert inside.startswith("<bdi>")
    assert inside.endswith("</bdi>")
    assert "<" not in inside[5:-6]
    shown.encode()
