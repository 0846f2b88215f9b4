"""Signing in by a one-time link."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from monitor.store.clickhouse import EventStore
from monitor.store.state import LoginLink, WebSession
from tests.people import link
from tests.web.conftest import Browser
from tests.web.seeding import Stand, console


def test_looking_at_a_link_does_not_use_it_up(stand: Stand, stranger: TestClient) -> None:
    token = link(stand.state, "ana")
    for _ in range(3):
        assert stranger.get(f"/login?token={token}").status_code == 200
    answer = stranger.post("/login", data={"token": token})
    assert answer.status_code == 303
    assert stranger.get("/alerts").status_code == 200


def test_a_link_works_once(stand: Stand, stranger: TestClient) -> None:
    token = link(stand.state, "ana")
    assert stranger.post("/login", data={"token": token}).status_code == 303
    stranger.cookies.clear()
    again = stranger.post("/login", data={"token": token})
    assert again.status_code == 403
    assert "watchkeeper login" in again.text
    assert "set-cookie" not in again.headers


def test_an_old_link_works_no_more(stand: Stand, stranger: TestClient) -> None:
    token = link(stand.state, "ana", timedelta(seconds=0))
    assert stranger.post("/login", data={"token": token}).status_code == 403


def test_neither_link_nor_cookie_is_kept_as_it_is(stand: Stand, browser: Browser) -> None:
    cookie = browser.cookies["watchkeeper"]
    token = link(stand.state, "bea")
    with stand.state.read() as session:
        kept = [
            *session.scalars(select(LoginLink.token_hash)),
            *session.scalars(select(WebSession.token_hash)),
        ]
    assert len(kept) == 3
    assert cookie not in kept
    assert token not in kept


@pytest.mark.parametrize("path", ["/", "/alerts", "/alerts/a_1", "/alerts/stream", "/status"])
def test_a_stranger_is_told_how_to_get_a_link(stranger: TestClient, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 303
    page = stranger.get(answer.headers["location"])
    assert "watchkeeper login" in page.text


def test_a_stale_page_of_a_stranger_is_sent_to_the_door(stranger: TestClient) -> None:
    answer = stranger.get("/status/body", headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/login"


def test_the_cookie_cannot_be_read_by_scripts(stand: Stand, stranger: TestClient) -> None:
    answer = stranger.post("/login", data={"token": link(stand.state, "ana")})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie


def test_behind_https_the_cookie_is_tied_to_the_host(tmp_path: Path, store: EventStore) -> None:
    with console(tmp_path / "https", store, console={"public_url": "https://watch.example"}) as stand:
        client = TestClient(stand.app, base_url="https://watch.example", follow_redirects=False)
        answer = client.post("/login", data={"token": link(stand.state, "ana")})
        assert answer.headers["set-cookie"].startswith("__Host-watchkeeper=")
        assert "; Secure" in answer.headers["set-cookie"]
        assert client.get("/alerts").status_code == 200


def test_another_site_cannot_sign_somebody_in(stand: Stand, stranger: TestClient) -> None:
    token = link(stand.state, "mallory")
    answer = stranger.post("/login", data={"token": token}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


def test_signing_out_ends_the_session_on_the_server(browser: Browser) -> None:
    cookie = browser.cookies["watchkeeper"]
    assert browser.post("/logout", data={"csrf": browser.csrf}).status_code == 303
    browser.cookies.set("watchkeeper", cookie)
    assert browser.get("/alerts").status_code == 303


def test_a_session_ends_when_its_time_is_over(stand: Stand, browser: Browser) -> None:
    with stand.state.write() as session:
        for row in session.scalars(select(WebSession)):
            row.expires_at = 1
    assert browser.get("/alerts").status_code == 303
