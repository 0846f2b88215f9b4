"""Signing in by name and password."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from monitor.people import throttle
from monitor.people.accounts import AccountError, People
from monitor.store.state import AuditEntry, Person, SignInFailure
from tests.web.conftest import Browser
from tests.web.seeding import Stand

PASSWORD = "correct horse battery"


@pytest.fixture
def ana(stand: Stand) -> People:
    people = People(stand.state)
    people.add("ana", "analyst", "test", password=PASSWORD)
    return people


def attempt(client: TestClient, name: str = "ana", password: str = PASSWORD) -> int:
    return client.post("/login/password", data={"name": name, "password": password}).status_code


def test_the_right_password_signs_in(ana: People, stranger: TestClient) -> None:
    assert attempt(stranger) == 303
    page = stranger.get("/account")
    assert page.status_code == 200
    assert "analyst" in page.text


@pytest.mark.parametrize(
    ("name", "password"), [("ana", "wrong horse battery"), ("nobody", PASSWORD), ("ana", "")]
)
def test_a_wrong_one_does_not_and_says_nothing_of_who_is_there(
    ana: People, stranger: TestClient, name: str, password: str
) -> None:
    answer = stranger.post("/login/password", data={"name": name, "password": password or "x"})
    assert answer.status_code == 403
    assert "Name or password is wrong" in answer.text
    assert "set-cookie" not in answer.headers


def test_it_is_kept_as_argon2id_and_never_shown(stand: Stand, ana: People) -> None:
    with stand.state.read() as session:
        kept = session.scalar(select(Person.password_hash))
    assert kept is not None
    assert kept.startswith("$argon2id$")
    shown = str(ana.list())
    assert PASSWORD not in shown
    assert kept not in shown


def test_failures_slow_down_and_the_right_one_must_wait_too(
    stand: Stand, ana: People, stranger: TestClient
) -> None:
    failed = [attempt(stranger, password=f"wrong guess {n}") for n in range(throttle.FREE["both"] + 1)]
    assert failed == [403] * len(failed)
    slowed = stranger.post("/login/password", data={"name": "ana", "password": PASSWORD})
    assert slowed.status_code == 429
    assert 1 <= int(slowed.headers["retry-after"]) <= 2
    with stand.state.write() as session:
        for one in session.scalars(select(SignInFailure)):
            one.until = 0
    assert attempt(stranger) == 303
    with stand.state.read() as session:
        assert session.get(SignInFailure, "both:ana@testclient") is None


def test_an_address_that_tries_many_names_is_slowed_down(stand: Stand, stranger: TestClient) -> None:
    with stand.state.write() as session:
        for n in range(throttle.FREE["address"] + 1):
            throttle.failed(session, f"name-{n}", "198.51.100.7")
    with stand.state.read() as session:
        assert throttle.wait(session, "somebody-else", "198.51.100.7") > 0
        assert throttle.wait(session, "somebody-else", "198.51.100.8") == 0


@pytest.mark.parametrize("password", ["short", "x" * 201, "my name is ana, yes"])
def test_a_weak_password_is_refused(ana: People, password: str) -> None:
    with pytest.raises(AccountError, match="a password"):
        ana.set_password("ana", password, "test")


def test_a_person_sets_their_own_password_and_is_signed_out_everywhere(
    stand: Stand, ana: People, stranger: TestClient
) -> None:
    other = TestClient(stand.app, base_url="http://127.0.0.1", follow_redirects=False)
    assert attempt(stranger) == attempt(other) == 303
    found = re.search(r'name="csrf" content="([^"]+)"', stranger.get("/account").text)
    assert found
    new = "another horse battery"
    form = {"csrf": found[1], "present": PASSWORD, "password": new, "again": new}
    assert stranger.post("/account/password", data={**form, "present": "x"}).status_code == 409
    assert stranger.post("/account/password", data={**form, "again": "y" * 12}).status_code == 409
    assert stranger.post("/account/password", data=form).status_code == 303
    assert other.get("/alerts").status_code == stranger.get("/alerts").status_code == 303
    assert attempt(stranger) == 403
    assert attempt(stranger, password=new) == 303


def test_the_trail_has_who_came_who_failed_and_from_where(
    stand: Stand, ana: People, stranger: TestClient
) -> None:
    attempt(stranger, password="wrong horse battery")
    attempt(stranger)
    with stand.state.read() as session:
        told = [(one.action, one.actor, one.address) for one in session.scalars(select(AuditEntry))]
    assert told == [
        ("person.add", "test", None),
        ("sign_in.failed", "ana", "testclient"),
        ("sign_in", "ana", "testclient"),
    ]


def test_a_flood_of_passwords_is_turned_away_and_leaves_room_for_the_rest(
    stand: Stand, ana: People, stranger: TestClient
) -> None:
    with ThreadPoolExecutor(40) as pool:
        answers = [*pool.map(lambda n: attempt(stranger, f"name-{n}", f"wrong horse {n}"), range(60))]
    assert set(answers) == {403, 429}
    with stand.state.write() as session:
        for one in session.scalars(select(SignInFailure)):
            one.until = 0
    assert attempt(stranger) == 303


def test_a_link_that_an_admin_makes_is_in_the_trail(stand: Stand, browser: Browser) -> None:
    form = {"csrf": browser.csrf, "name": "vic", "role": "viewer", "reason": "new here"}
    assert "/login?token=" in browser.post("/people", data=form).text
    assert "/login?token=" in browser.post("/people/vic", data={"csrf": browser.csrf, "act": "link"}).text
    with stand.state.read() as session:
        told = [one.action for one in session.scalars(select(AuditEntry)) if one.subject == "person:vic"]
    assert told == ["person.add", "login_link.create", "login_link.create"]
