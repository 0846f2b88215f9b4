"""Every route names the right it needs, and every role is let in or refused accordingly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from monitor.people.accounts import AccountError, People
from monitor.people.roles import RIGHTS, ROLES
from monitor.web.auth import Api, Needs, Page
from tests.people import link
from tests.web.conftest import key
from tests.web.seeding import Stand

PUBLIC = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/login/password"),
    ("GET", "/login/provider"),
    ("GET", "/login/provider/back"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}
"""Open without a person or a key. /metrics is open to this machine, and asks others for a key itself."""

ENDLESS = {"/alerts/stream"}
"""Let in for ever: what it needs is seen from its declaration."""


def routes(stand: Stand) -> list[tuple[str, APIRoute]]:
    inside = (getattr(route, "original_router", None) for route in stand.app.routes)
    found = [route for router in inside if router is not None for route in router.routes]
    assert len(found) > 40
    return [(method, route) for route in found for method in sorted(route.methods)]


def needs(dependant: Dependant) -> Iterator[Needs]:
    if isinstance(dependant.call, Needs):
        yield dependant.call
    yield from chain.from_iterable(needs(inner) for inner in dependant.dependencies)


def path(route: APIRoute) -> str:
    return re.sub(r"\{[^}]+\}", "1-1", route.path)


def test_every_route_names_one_right_or_is_known_to_be_public(stand: Stand) -> None:
    seen = set()
    for method, route in routes(stand):
        found = {one.right for one in needs(route.dependant)}
        if (method, route.path) in PUBLIC:
            assert not found
            seen.add((method, route.path))
        else:
            assert len(found) == 1, f"{method} {route.path} names {sorted(found) or 'nothing'}"
            assert found <= set(RIGHTS)
    assert seen == PUBLIC


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reaches_what_it_may_and_nothing_else(stand: Stand, role: str) -> None:
    client = TestClient(stand.app, base_url="http://127.0.0.1", follow_redirects=False)
    assert client.post("/login", data={"token": link(stand.state, f"a-{role}", role=role)}).status_code == 303
    found = re.search(r'name="csrf" content="([^"]+)"', client.get("/status").text)
    assert found
    refused = 0
    for method, route in routes(stand):
        wanted = [*needs(route.dependant)]
        if not wanted or route.path in ENDLESS or route.path == "/logout":
            continue
        answer = client.request(method, path(route), headers={"X-CSRF-Token": found[1]})
        if wanted[0].right in ROLES[role]:
            assert answer.status_code not in (401, 403), f"{method} {route.path}: {answer.text}"
        else:
            assert answer.status_code == 403, f"{method} {route.path} let {role} in"
            refused += 1
    assert bool(refused) is (role != "admin")


def test_strangers_reach_nothing(stand: Stand, stranger: TestClient) -> None:
    for method, route in routes(stand):
        wanted = [*needs(route.dependant)]
        if wanted:
            answer = stranger.request(method, path(route))
            assert answer.status_code == (401 if isinstance(wanted[0], Api) else 303), route.path


@pytest.mark.parametrize("scope", RIGHTS)
def test_a_key_reaches_the_api_as_far_as_its_scopes_go(
    stand: Stand, stranger: TestClient, scope: str
) -> None:
    headers = key(stand, scope)
    for method, route in routes(stand):
        wanted = [*needs(route.dependant)]
        if not wanted or isinstance(wanted[0], Page):
            continue
        answer = stranger.request(method, path(route), headers=headers)
        assert (answer.status_code == 403) is (wanted[0].right != scope), f"{method} {route.path}"


def test_a_write_by_cookie_without_the_token_is_refused_on_every_route(stand: Stand) -> None:
    client = TestClient(stand.app, base_url="http://127.0.0.1", follow_redirects=False)
    client.post("/login", data={"token": link(stand.state, "root")})
    written = 0
    for method, route in routes(stand):
        if method not in ("GET", "HEAD") and [*needs(route.dependant)]:
            assert client.request(method, path(route)).status_code == 403, route.path
            written += 1
    assert written >= 8


def test_another_role_counts_from_the_next_request_on(stand: Stand) -> None:
    client = TestClient(stand.app, base_url="http://127.0.0.1", follow_redirects=False)
    client.post("/login", data={"token": link(stand.state, "ana", role="compliance")})
    assert client.get("/audit").status_code == 200
    People(stand.state).change_role("ana", "viewer", "test")
    refused = client.get("/audit")
    assert refused.status_code == 403
    assert "compliance, admin" in refused.text
    People(stand.state).disable("ana", "test")
    assert client.get("/alerts").status_code == 303


def test_the_last_admin_cannot_be_lost(stand: Stand) -> None:
    people = People(stand.state)
    people.add("root", "admin", "test")
    for act in (lambda: people.disable("root", "test"), lambda: people.change_role("root", "viewer", "test")):
        with pytest.raises(AccountError, match="last admin"):
            act()
    people.add("second", "admin", "test")
    people.disable("root", "test")
