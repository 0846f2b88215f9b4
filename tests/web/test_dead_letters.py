"""Dead letters over the API: who may see which, in what order, and what of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from monitor.sources.deadletters import DeadLetter, DeadLetters
from monitor.sources.deadreader import mark_done
from monitor.sources.gate import Rejection
from monitor.sources.keys import Sender
from tests.web.conftest import key
from tests.web.seeding import HOSTILE, Stand

PATH = "/api/v1/dead-letters"


@pytest.fixture
def letters(stand: Stand) -> DeadLetters:
    """Ten letters, half of them a rival tenant's; the oldest was replayed."""
    dead = DeadLetters(stand.settings.dead_letters_folder)
    for n in range(10):
        sender = Sender(f"key_{n % 2}", "rival" if n % 2 else "default", way="/v1/events")
        fault = Rejection(n, f"reason {n}", f"{HOSTILE}{n}\u2028".encode())
        dead.append([DeadLetter.of(1000 + n, sender, fault, dead.most)])
    mark_done(dead.folder, ["1-1"], 5, "ana")
    return dead


def indexes(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["index"] for item in answer.json()["items"]]


def test_letters_need_the_scope_and_show_the_own_tenant_only(
    stand: Stand, stranger: TestClient, letters: DeadLetters
) -> None:
    sender, reader, rival = key(stand, "ingest"), key(stand, "read"), key(stand, "read", tenant="rival")
    for path in (PATH, f"{PATH}/1-1", f"{PATH}/download"):
        assert stranger.get(path).status_code == 401
        assert stranger.get(path, headers=sender).status_code == 403
    assert indexes(stranger.get(PATH, headers=reader)) == [8, 6, 4, 2, 0]
    assert indexes(stranger.get(PATH, headers=rival)) == [9, 7, 5, 3, 1]
    assert stranger.get(f"{PATH}/1-1", headers=reader).status_code == 200
    assert stranger.get(f"{PATH}/1-1", headers=rival).status_code == 404
    lines = stranger.get(f"{PATH}/download", headers=rival).content.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [9, 7, 5, 3, 1]


def test_a_person_sees_all_of_them_page_by_page(browser: TestClient, letters: DeadLetters) -> None:
    first = browser.get(PATH, params={"limit": 4})
    second = browser.get(PATH, params={"limit": 4, "cursor": first.json()["next_cursor"]})
    third = browser.get(PATH, params={"limit": 4, "cursor": second.json()["next_cursor"]})
    assert [*indexes(first), *indexes(second), *indexes(third)] == list(range(9, -1, -1))
    assert third.json()["next_cursor"] is None


def test_letters_are_chosen_by_reason_key_time_and_whether_they_were_replayed(
    browser: TestClient, letters: DeadLetters
) -> None:
    assert indexes(browser.get(PATH, params={"reason": "Reason 3"})) == [3]
    assert indexes(browser.get(PATH, params={"key": "key_0", "since": 1005})) == [8, 6]
    assert indexes(browser.get(PATH, params={"replayed": True})) == [0]
    assert len(indexes(browser.get(PATH, params={"replayed": False}))) == 9


def test_a_letter_shows_all_that_was_sent_and_by_whom_it_was_replayed(
    browser: TestClient, letters: DeadLetters
) -> None:
    shown = browser.get(f"{PATH}/1-1").json()
    assert shown["raw"] == shown["excerpt"] == f"{HOSTILE}0\u2028"
    assert (shown["replayed_at"], shown["replayed_by"]) == (5, "ana")
    assert "raw" not in browser.get(PATH).json()["items"][0]


@pytest.mark.parametrize("wrong", ["0-1", "1", "..", "1-99999999999999"])
def test_a_made_up_id_or_cursor_is_a_problem_with_a_remedy(browser: TestClient, wrong: str) -> None:
    assert browser.get(f"{PATH}/{wrong}").status_code in (404, 422)
    assert browser.get(PATH, params={"cursor": wrong}).status_code == 422


def test_only_an_operator_sends_letters_again_and_only_the_own(
    stand: Stand, stranger: TestClient, letters: DeadLetters
) -> None:
    asked = {"ids": ["1-1", "1-2"]}
    reader, rival = key(stand, "read"), key(stand, "triage", "respond", tenant="rival")
    assert stranger.post(f"{PATH}/replay", json=asked).status_code == 401
    assert stranger.post(f"{PATH}/replay", json=asked, headers=reader).status_code == 403
    for wrong in ({"ids": []}, {"ids": ["x"]}, {"ids": ["1-1"], "as": "admin"}, {"ids": ["1-1"] * 501}):
        assert stranger.post(f"{PATH}/replay", json=wrong, headers=rival).status_code == 422
    theirs = stranger.post(f"{PATH}/replay", json={"ids": ["1-1"]}, headers=rival)
    assert [one["state"] for one in theirs.json()["outcomes"]] == ["gone"]
    # No daemon runs on this folder, so there is no edge to ask.
    assert stranger.post(f"{PATH}/replay", json=asked, headers=rival).status_code == 503
