"""Signing in by an OpenID Connect provider, a real one on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from monitor.people.accounts import People
from monitor.store.clickhouse import EventStore
from monitor.store.state import AuditEntry, Person
from tests.web.seeding import Stand, console

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oidc_provider_mock import User, run_server_in_thread

PEOPLE = (
    User(sub="1", claims={"preferred_username": "ana", "groups": ["soc", "everyone"], "name": "Ana"}),
    User(sub="2", claims={"preferred_username": "max", "groups": ["everyone"]}),
    User(sub="3", claims={"preferred_username": "<script>", "groups": ["soc"]}),
    User(sub="4", claims={"preferred_username": "lead", "groups": ["soc", "leads"]}),
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with run_server_in_thread(user_claims=PEOPLE) as server:
            yield f"http://localhost:{server.server_port}"


@pytest.fixture
def site(tmp_path: Path, store: EventStore, issuer: str) -> Iterator[Stand]:
    oidc: dict[str, Any] = {
        "issuer": issuer,
        "client_id": "watchkeeper",
        "client_secret": "a secret between the two",
        "roles": {"soc": "analyst", "leads": "responder"},
    }
    with console(tmp_path / "data", store, console={"oidc": oidc}) as made:
        yield made


def browser(site: Stand) -> TestClient:
    return TestClient(site.app, base_url="http://127.0.0.1", follow_redirects=False)


def go(client: TestClient, subject: str) -> str:
    """Go to the provider and say who one is there; the way back."""
    departing = client.get("/login/provider")
    assert departing.status_code == 302
    asked = parse_qs(urlsplit(departing.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["nonce"]
    assert asked["state"]
    back = httpx.post(departing.headers["location"], data={"sub": subject}, trust_env=False)
    assert back.status_code == 302
    place = urlsplit(back.headers["location"])
    return f"{place.path}?{place.query}"


def sign_in(client: TestClient, subject: str) -> httpx.Response:
    return client.get(go(client, subject))


def test_the_provider_says_who_it_is_and_its_groups_give_the_role(site: Stand, issuer: str) -> None:
    client = browser(site)
    assert "Sign in with your organisation" in client.get("/login").text
    answer = sign_in(client, "1")
    assert answer.status_code == 303
    assert client.get("/alerts").status_code == 200
    assert client.get("/people").status_code == 403
    with site.state.read() as session:
        person = session.get(Person, "ana")
    assert person is not None
    assert (person.role, person.display_name, person.issuer, person.subject) == (
        "analyst",
        "Ana",
        issuer,
        "1",
    )


def test_the_strongest_of_several_roles_counts(site: Stand) -> None:
    sign_in(browser(site), "4")
    assert [one["role"] for one in People(site.state).list()] == ["responder"]


@pytest.mark.parametrize(("subject", "why"), [("2", "has no role here"), ("3", "which is no name here")])
def test_somebody_without_a_role_or_a_name_stays_out(site: Stand, subject: str, why: str) -> None:
    client = browser(site)
    answer = sign_in(client, subject)
    assert answer.status_code == 403
    assert why in answer.text
    assert "<script>" not in answer.text
    assert client.get("/alerts").status_code == 303
    with site.state.read() as session:
        [told] = session.scalars(select(AuditEntry))
    assert told.action == "sign_in.failed"


def test_a_name_that_is_taken_is_not_taken_over(site: Stand) -> None:
    People(site.state).add("ana", "admin", "test")
    answer = sign_in(browser(site), "1")
    assert answer.status_code == 403
    assert "Somebody else is called ana" in answer.text


def test_a_disabled_account_stays_out_whatever_the_provider_says(site: Stand) -> None:
    sign_in(browser(site), "1")
    People(site.state).disable("ana", "test")
    assert sign_in(browser(site), "1").status_code == 403


def test_a_role_that_was_changed_here_is_the_provider_s_again_at_the_next_sign_in(site: Stand) -> None:
    sign_in(browser(site), "1")
    People(site.state).change_role("ana", "viewer", "test")
    sign_in(browser(site), "1")
    assert [one["role"] for one in People(site.state).list()] == ["analyst"]


def test_a_way_back_that_this_browser_did_not_begin_is_refused(site: Stand) -> None:
    back = go(browser(site), "1")
    mallory = browser(site)
    answer = mallory.get(back)
    assert answer.status_code == 403
    assert mallory.get("/alerts").status_code == 303


def test_a_way_back_works_once(site: Stand) -> None:
    client = browser(site)
    back = go(client, "1")
    assert client.get(back).status_code == 303
    assert client.get(back).status_code == 403


def test_a_code_that_was_changed_is_refused(site: Stand) -> None:
    client = browser(site)
    back = go(client, "1")
    assert client.get(back.replace("code=", "code=x")).status_code == 403


def test_who_says_no_there_is_told_here(site: Stand) -> None:
    client = browser(site)
    state = parse_qs(urlsplit(client.get("/login/provider").headers["location"]).query)["state"][0]
    answer = client.get(f"/login/provider/back?error=access_denied&state={state}")
    assert answer.status_code == 403


def test_a_provider_that_is_away_leaves_the_other_ways_open(tmp_path: Path, store: EventStore) -> None:
    oidc = {
        "issuer": "http://127.0.0.1:9", "client_id": "x", "client_secret": "y", "roles": {"soc": "analyst"}
    }  # fmt: skip
    with console(tmp_path / "away", store, console={"oidc": oidc}) as made:
        answer = browser(made).get("/login/provider")
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert "Password" in answer.text
