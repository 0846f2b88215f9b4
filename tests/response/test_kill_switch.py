"""Orders driven to their end against real endpoints over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from monitor.response.addresses import AddressRefused, Resolver, checked_addresses
from monitor.response.worker import OrderWorker
from monitor.settings import ContainmentSettings, EndpointSettings
from monitor.simulation.endpoint import StopResult, endpoint_app
from monitor.store.state import Order, State
from tests.response.making import alert, ask_to_stop, consider, desk, moves, pages, read
from tests.response.responders import (
    OTHER_SECRET,
    QUICK,
    SECRET,
    answer,
    contained,
    containment,
    endpoint,
    eventually,
    lossy,
    scripted,
    served,
    unused_port,
)

FINAL = {"confirmed", "partial", "unconfirmed", "failed", "expired"}


class Agent:
    """An agent that is a process of its own, and a stop that kills it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.stops: list[dict[str, Any]] = []

    async def stop(self, target: dict[str, Any]) -> StopResult:
        self.stops.append(target)
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        return StopResult("stopped", "supervisor", f"killed {self.process.pid}")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@pytest.fixture
def agent() -> Iterator[Agent]:
    made = Agent()
    yield made
    made.process.kill()
    made.process.communicate()


@contextlib.contextmanager
def working(state: State, settings: ContainmentSettings, **timing: float) -> Iterator[Any]:
    """A desk with a worker behind it."""
    orders = desk(state, settings)
    worker = OrderWorker(state, orders, settings, replace(QUICK, **timing), poll_seconds=0.02)
    orders.on_wake(worker.wake)
    worker.start()
    try:
        yield orders
    finally:
        worker.stop()


def ended(state: State, request_id: str) -> Order:
    return eventually(lambda: order if (order := read(state, request_id)).state in FINAL else None)


def driven(state: State, *chain: EndpointSettings, **timing: float) -> Order:
    """A human's order against these endpoints, at its end."""
    with working(state, containment(*chain), **timing) as orders:
        return ended(state, ask_to_stop(orders).request_id)


def test_an_order_kills_the_process_of_an_agent(state: State, agent: Agent) -> None:
    with (
        served(endpoint_app(SECRET, agent.stop)) as url,
        working(state, containment(endpoint(url))) as orders,
    ):
        order = consider(orders, alert())
        assert order is not None
        order = ended(state, order.request_id)
    assert not agent.alive
    assert (order.state, order.endpoint, order.attempts) == ("confirmed", "main", 1)
    assert order.enforcement[0]["detail"] == f"killed {agent.process.pid}"
    assert order.sent_at is not None
    assert order.accepted_at == order.confirmed_at
    assert order.detected_at <= order.created_at <= order.sent_at <= (order.confirmed_at or 0)
    assert moves(state, order.request_id) == ["requested", "sent", "confirmed"]
    assert pages(state) == []


def test_an_order_from_another_process_is_seen_without_a_wake(state: State, agent: Agent) -> None:
    with served(endpoint_app(SECRET, agent.stop)) as url:
        settings = containment(endpoint(url))
        with working(state, settings):
            assert ended(state, ask_to_stop(desk(state, settings)).request_id).state == "confirmed"


def test_a_slow_first_reply_is_asked_again_under_the_same_key(state: State, agent: Agent) -> None:
    async def slow(target: dict[str, Any]) -> StopResult:
        await asyncio.sleep(0.6)
        return await agent.stop(target)

    with served(endpoint_app(SECRET, slow)) as url:
        order = driven(state, endpoint(url), read=0.2, connect=0.2, backoff=0.2)
    assert (order.state, len(agent.stops)) == ("confirmed", 1)
    assert order.attempts > 1


def test_an_answer_lost_after_the_effect_means_one_effect(state: State, agent: Agent) -> None:
    with served(endpoint_app(SECRET, agent.stop)) as url, lossy(url, lost=2) as wire:
        order = driven(state, endpoint(wire))
    assert (order.state, order.attempts, len(agent.stops)) == ("confirmed", 3, 1)


def test_a_worker_that_dies_between_order_and_reply_is_taken_over(state: State, agent: Agent) -> None:
    hold, begun = threading.Event(), threading.Event()

    async def held(target: dict[str, Any]) -> StopResult:
        begun.set()
        await asyncio.to_thread(hold.wait, 10)
        return await agent.stop(target)

    with served(endpoint_app(SECRET, held)) as url:
        settings = containment(endpoint(url))
        with working(state, settings, read=10) as orders:
            request_id = ask_to_stop(orders).request_id
            assert begun.wait(10)
        first = read(state, request_id)
        assert first.state == "sent"
        with working(state, settings):
            hold.set()
            order = ended(state, request_id)
    assert (order.state, len(agent.stops)) == ("confirmed", 1)
    assert order.body == first.body


def work_until_killed(file: Path, settings: ContainmentSettings) -> None:
    """A process of its own, as detection is."""
    state = State(file)
    OrderWorker(state, desk(state, settings), settings).start()
    threading.Event().wait()


def test_a_process_killed_between_order_and_reply_leaves_one_effect(state: State, agent: Agent) -> None:
    hold, begun = threading.Event(), threading.Event()

    async def held(target: dict[str, Any]) -> StopResult:
        begun.set()
        await asyncio.to_thread(hold.wait, 30)
        return await agent.stop(target)

    with served(endpoint_app(SECRET, held, patience=30)) as url:
        settings = containment(endpoint(url))
        request_id = ask_to_stop(desk(state, settings)).request_id
        child = multiprocessing.get_context("spawn").Process(
            target=work_until_killed, args=(state.file, settings)
        )
        child.start()
        assert begun.wait(30)
        child.kill()
        child.join()
        hold.set()
        with working(state, settings):
            order = ended(state, request_id)
    assert (order.state, order.attempts, len(agent.stops)) == ("confirmed", 2, 1)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A certificate for the name localhost, trusted in this test."""
    if (tool := shutil.which("openssl")) is None:
        pytest.skip("openssl is not here to make a certificate with")
    key, file = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [tool, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", file]
    subprocess.run([*made, *names], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", file)
    return {"ssl_keyfile": key, "ssl_certfile": file}


def test_the_certificate_is_checked_against_the_name(
    state: State, agent: Agent, certificate: dict[str, str]
) -> None:
    with served(endpoint_app(SECRET, agent.stop), **certificate) as url:
        by_address = driven(state, endpoint(url.replace("http", "https")))
        alive = agent.alive
        by_name = driven(state, endpoint(url.replace("http", "https").replace("127.0.0.1", "localhost")))
    assert (by_address.state, alive) == ("failed", True)
    assert "CERTIFICATE_VERIFY_FAILED" in str(by_address.detail)
    assert by_name.state == "confirmed"


def test_a_long_stop_is_accepted_and_polled(state: State, agent: Agent) -> None:
    release = threading.Event()

    async def long(target: dict[str, Any]) -> StopResult:
        await asyncio.to_thread(release.wait, 10)
        return await agent.stop(target)

    with (
        served(endpoint_app(SECRET, long, patience=0.05)) as url,
        working(state, containment(endpoint(url))) as orders,
    ):
        request_id = ask_to_stop(orders).request_id
        accepted = eventually(lambda: row if (row := read(state, request_id)).state == "accepted" else None)
        release.set()
        order = ended(state, request_id)
    assert accepted.poll_url == f"/orders/{request_id}"
    assert moves(state, request_id) == ["requested", "sent", "accepted", "confirmed"]
    assert (order.accepted_at or 0) < (order.confirmed_at or 0)


def test_polling_goes_on_with_the_next_worker(state: State) -> None:
    with scripted(answer(202, location="/orders/1", retry_after="0")) as stalled:
        settings = containment(endpoint(stalled.url))
        with working(state, settings) as orders:
            request_id = ask_to_stop(orders).request_id
            eventually(lambda: len(stalled.asked) > 2)
        stalled.script[:] = [answer(200, contained())]
        with working(state, settings):
            assert ended(state, request_id).state == "confirmed"
    assert [asked.method for asked in stalled.asked].count("POST") == 1
    assert {asked.path for asked in stalled.asked[1:]} == {"/orders/1"}


def test_polling_without_end_is_unconfirmed(state: State) -> None:
    with scripted(answer(202, location="/orders/1", retry_after="0")) as stalled:
        order = driven(state, endpoint(stalled.url), poll=0.3)
    assert (order.state, pages(state)) == ("unconfirmed", ["order-unconfirmed"])


def test_no_poll_goes_to_another_host(state: State) -> None:
    with scripted(answer(200, contained())) as other, scripted(answer(202, location=other.url)) as main:
        order = driven(state, endpoint(main.url))
    assert (order.state, other.asked) == ("unconfirmed", [])


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_a_passing_fault_is_tried_again_with_the_same_bytes_and_key(state: State, status: int) -> None:
    fault = answer(status, retry_after="0")
    with scripted(fault, fault, answer(200, contained())) as server:
        order = driven(state, endpoint(server.url))
    assert (order.state, order.attempts) == ("confirmed", 3)
    assert {asked.body for asked in server.asked} == {order.body}
    assert {asked.headers["idempotency-key"] for asked in server.asked} == {f'"{order.request_id}"'}
    assert {asked.headers["webhook-id"] for asked in server.asked} == {order.request_id}


def test_each_attempt_is_signed_by_every_secret(state: State) -> None:
    with scripted(answer(200, contained())) as server:
        driven(state, endpoint(server.url, secrets=[SECRET, OTHER_SECRET], token="t0ken"))
    asked = server.asked[0]
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(asked.body, asked.headers)
    assert asked.headers["authorization"] == "Bearer t0ken"
    version, trace, span, _ = asked.headers["traceparent"].split("-")
    assert (version, len(trace), len(span)) == ("00", 32, 16)


def test_five_attempts_and_no_more(state: State) -> None:
    with scripted(answer(503, {"title": "Down", "detail": "maintenance"})) as server:
        order = driven(state, endpoint(server.url))
    assert (order.state, len(server.asked), order.attempts) == ("failed", 5, 5)
    assert order.detail == "main: no answer that counts: 503 Service Unavailable: Down: maintenance"
    assert pages(state) == ["order-failed"]


def test_a_wait_longer_than_the_endpoint_has_is_not_waited_for(state: State) -> None:
    begun = time.monotonic()
    with scripted(answer(429, retry_after="3600")) as server:
        order = driven(state, endpoint(server.url))
    assert (order.state, len(server.asked)) == ("failed", 1)
    assert time.monotonic() - begun < QUICK.endpoint


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 410, 422])
def test_a_refusal_is_not_tried_again_and_shown(state: State, status: int) -> None:
    problem = {"title": "Refused", "detail": "no\nsuch\x1b[31m agent"}
    with (
        scripted(answer(200, contained())) as elsewhere,
        scripted(answer(status, problem, location=elsewhere.url)) as server,
    ):
        order = driven(state, endpoint(server.url))
    assert (order.state, len(server.asked), elsewhere.asked) == ("failed", 1, [])
    assert order.detail is not None
    assert order.detail.startswith(f"main: {status} ")
    assert order.detail.isprintable()
    assert ("Refused: no such [31m agent" in order.detail) is (status != 307)
    assert pages(state) == ["order-failed"]


def test_an_endpoint_that_is_gone_is_asked_no_more(state: State) -> None:
    with (
        scripted(answer(410)) as server,
        working(state, containment(endpoint(server.url))) as orders,
    ):
        ended(state, ask_to_stop(orders).request_id)
        second = ended(state, ask_to_stop(orders, session_id="s2").request_id)
    assert (second.state, len(server.asked)) == ("failed", 1)
    assert "410" in str(second.detail)


def test_a_wrong_secret_is_refused_by_the_reference_endpoint(state: State, agent: Agent) -> None:
    with served(endpoint_app(SECRET, agent.stop)) as url:
        order = driven(state, endpoint(url, secrets=[OTHER_SECRET]))
    assert (order.state, order.attempts) == ("failed", 1)
    assert "401 Unauthorized: Order refused: the signature" in str(order.detail)
    assert agent.alive


@pytest.mark.parametrize(
    ("payload", "state_after"),
    [
        (b"<html>welcome</html>", "unconfirmed"),
        (b"", "unconfirmed"),
        (b"[" * 60_000, "unconfirmed"),
        (b"x" * 70_000, "unconfirmed"),
        ({"state": "ok"}, "unconfirmed"),
        ({"state": "contained"}, "unconfirmed"),
        (contained(request_id="another"), "unconfirmed"),
        (contained(state="partial"), "partial"),
        (
            contained(
                enforcement_points=[{"name": "a", "state": "contained"}, {"name": "b", "state": "failed"}]
            ),
            "partial",
        ),
        (contained(state="failed"), "failed"),
    ],
)
def test_a_200_that_does_not_confirm_is_never_contained(state: State, payload: Any, state_after: str) -> None:
    with scripted(answer(200, payload)) as server:
        order = driven(state, endpoint(server.url))
    assert order.state == state_after
    assert order.confirmed_at is None
    assert pages(state) == [f"order-{state_after}"]


def test_any_other_success_is_accepted_and_unconfirmed(state: State) -> None:
    with scripted(answer(204)) as server:
        order = driven(state, endpoint(server.url))
    assert moves(state, order.request_id) == ["requested", "sent", "accepted", "unconfirmed"]


def test_an_endless_body_is_cut_off(state: State) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    with scripted(endless) as server:
        order = driven(state, endpoint(server.url))
    assert (order.state, order.attempts) == ("unconfirmed", 1)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_slow_drip_is_cut_off(state: State, head: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"y")
            threading.Event().wait(0.02)

    begun = time.monotonic()
    with scripted(drip) as server:
        order = driven(state, endpoint(server.url), read=0.2, connect=0.2, endpoint=1.0)
    assert order.state == "failed"
    assert "no whole answer in time" in str(order.detail)
    assert time.monotonic() - begun < 4


def test_an_endpoint_that_is_down_fails_and_pages(state: State) -> None:
    order = driven(state, endpoint(f"http://127.0.0.1:{unused_port()}/kill"))
    assert (order.state, order.attempts) == ("failed", 5)
    assert "ConnectError" in str(order.detail)
    assert pages(state) == ["order-failed"]


def test_the_next_endpoint_of_the_chain_takes_over(state: State, agent: Agent) -> None:
    down = endpoint(f"http://127.0.0.1:{unused_port()}/kill", "first")
    with served(endpoint_app(SECRET, agent.stop)) as url:
        order = driven(state, down, endpoint(url, "second"))
    assert (order.state, order.endpoint, order.attempts) == ("confirmed", "second", 6)
    assert str(order.detail).startswith("first: no answer that counts: ConnectError")


def test_without_a_confirmation_the_best_answer_of_the_chain_counts(state: State) -> None:
    with (
        scripted(answer(200, contained(state="partial"))) as first,
        scripted(answer(401)) as second,
    ):
        order = driven(state, endpoint(first.url, "first"), endpoint(second.url, "second"))
    assert (order.state, order.endpoint) == ("partial", "first")
    assert order.enforcement[0]["name"] == "gateway"
    assert "second: 401" in str(order.detail)


def test_an_order_that_no_endpoint_serves_fails_with_the_remedy(state: State) -> None:
    order = driven(state, endpoint("https://kill.example/", agents="other-*"))
    assert (order.state, order.sent_at) == ("failed", None)
    assert "containment.endpoints" in str(order.detail)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/kill",
        "https://localhost/kill",
        "https://10.0.0.1/kill",
        "https://[::1]/kill",
        "https://[::ffff:10.0.0.1]/kill",
        "https://[64:ff9b::a00:1]/kill",
        "https://169.254.169.254/latest",
    ],
)
def test_no_order_goes_to_a_private_address(state: State, url: str) -> None:
    order = driven(state, endpoint(url, allow_private=False))
    assert (order.state, order.attempts) == ("failed", 1)
    assert "address" in str(order.detail)


def test_no_order_leaves_without_tls_where_private_addresses_are_not_allowed() -> None:
    with pytest.raises(AddressRefused, match="not https"):
        asyncio.run(checked_addresses(httpx.URL("http://203.0.113.9/kill"), False, Resolver()))


def test_the_metadata_address_is_never_called(state: State) -> None:
    assert "metadata" in str(driven(state, endpoint("http://169.254.169.254/latest")).detail)


def test_an_order_that_came_too_late_is_not_sent(state: State) -> None:
    with scripted(answer(200, contained())) as server:
        settings = containment(endpoint(server.url), expires_seconds=0.001)
        request_id = ask_to_stop(desk(state, settings)).request_id
        eventually(lambda: time.time_ns() // 1000 > read(state, request_id).expires_at)
        with working(state, settings):
            order = ended(state, request_id)
    assert (order.state, server.asked) == ("expired", [])
    assert pages(state) == ["order-expired"]


def test_a_held_order_that_nobody_approves_expires(state: State) -> None:
    settings = containment(protected=["*"])
    orders = desk(state, settings)
    held = consider(orders, alert())
    assert held is not None
    with state.write() as session:
        session.get_one(Order, held.request_id).expires_at = 1
    with working(state, settings):
        assert ended(state, held.request_id).state == "expired"


def test_one_slow_endpoint_does_not_hold_back_another_order(state: State) -> None:
    with (
        scripted(lambda _: threading.Event().wait(3) and None) as slow,
        scripted(answer(200, contained())) as fast,
    ):
        chain = (endpoint(slow.url, "slow", agents="a"), endpoint(fast.url, "fast", agents="b"))
        with working(state, containment(*chain), read=3) as orders:
            ask_to_stop(orders, agent_id="a")
            eventually(lambda: slow.asked)
            begun = time.monotonic()
            assert ended(state, ask_to_stop(orders, agent_id="b").request_id).state == "confirmed"
            assert time.monotonic() - begun < 1


def test_a_fault_of_our_own_fails_the_order_and_the_worker_lives_on(state: State) -> None:
    with scripted(answer(200, contained())) as server:
        broken = endpoint(server.url, "broken", agents="a").model_copy(
            update={"secrets": [SecretStr("whsec_")]}
        )
        with working(state, containment(broken, endpoint(server.url, "good", agents="b"))) as orders:
            failed = ended(state, ask_to_stop(orders, agent_id="a").request_id)
            good = ended(state, ask_to_stop(orders, agent_id="b").request_id)
    assert (failed.state, good.state) == ("failed", "confirmed")
    assert str(failed.detail).startswith("broken: could not be asked (")
    assert "correct url, secrets and token of 'broken' in containment.endpoints" in str(failed.detail)


def test_an_endpoint_that_we_cannot_ask_passes_the_order_down_the_chain(state: State) -> None:
    with scripted(answer(200, contained())) as server:
        unreadable = [SecretStr("whsec_not-base64")]
        broken = endpoint(server.url, "broken").model_copy(update={"secrets": unreadable})
        order = driven(state, broken, endpoint(server.url, "good"))
    assert (order.state, order.endpoint) == ("confirmed", "good")
    assert "not-base64" not in str(order.detail)


def test_a_retry_after_of_zero_does_not_use_up_the_attempts_at_once(state: State) -> None:
    begun = time.monotonic()
    with scripted(answer(503, retry_after="0")) as server:
        order = driven(state, endpoint(server.url), backoff=0.1)
    assert (order.attempts, order.state) == (5, "failed")
    assert time.monotonic() - begun > 0.1 * (1 + 2 + 4 + 8)


@pytest.mark.parametrize(
    ("second", "state_after"), [(answer(200, contained()), "confirmed"), (answer(404), "partial")]
)
def test_without_an_environment_the_endpoints_of_every_environment_must_confirm(
    state: State, second: bytes, state_after: str
) -> None:
    with scripted(answer(200, contained())) as staging, scripted(second) as production:
        chain = [
            endpoint(staging.url, "staging", environments="staging"),
            endpoint(production.url, "production", environments="production"),
        ]
        order = driven(state, *chain)
    assert order.state == state_after
    assert (len(staging.asked), len(production.asked)) == (1, 1)


def test_in_a_known_environment_only_its_endpoints_are_asked(state: State) -> None:
    with scripted(answer(200, contained())) as staging, scripted(answer(200, contained())) as production:
        settings = containment(
            endpoint(staging.url, "staging", environments="staging"),
            endpoint(production.url, "production", environments="production"),
        )
        with working(state, settings) as orders:
            order = ended(state, ask_to_stop(orders, environment="production").request_id)
    assert (order.state, len(staging.asked), len(production.asked)) == ("confirmed", 0, 1)


def test_names_that_are_slow_to_resolve_hold_back_no_other_order(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, real = threading.Event(), socket.getaddrinfo

    def slow_for_one(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "slow.example":
            release.wait(20)
        return real("127.0.0.1" if host == "slow.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow_for_one)
    with scripted(answer(200, contained())) as server:
        chain = (
            endpoint("https://slow.example/kill", "slow", agents="a"),
            endpoint(server.url, "fast", agents="b"),
        )
        with working(state, containment(*chain), connect=0.3, endpoint=2, backoff=0.05) as orders:
            stuck = [ask_to_stop(orders, agent_id="a", session_id=f"s{n}").request_id for n in range(40)]
            eventually(lambda: all(read(state, each).state == "sent" for each in stuck))
            assert ended(state, ask_to_stop(orders, agent_id="b").request_id).state == "confirmed"
            slow = ended(state, stuck[0])
        release.set()
    assert slow.state == "failed"
    assert "no whole answer in time" in str(slow.detail)


def test_the_body_names_what_is_asked_and_when_it_ends(state: State) -> None:
    with scripted(answer(200, contained())) as server:
        driven(state, endpoint(server.url))
    data = msgspec.json.decode(server.asked[0].body)["data"]
    assert data["target"]["session_id"] == "s1"
    assert data["expires_at"].endswith("Z")
    assert data["initiated_by"] == {"type": "user", "id": "ada"}
