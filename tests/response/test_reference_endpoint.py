"""The receiving side of the contract, asked directly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from monitor.response.killswitch import signed_headers
from monitor.simulation.endpoint import StopResult, endpoint_app
from monitor.store.state import State
from tests.response.making import ask_to_stop, desk
from tests.response.responders import OTHER_SECRET, SECRET, endpoint, eventually, served


class Plant:
    """Counts stops; ``results`` says what each enforcement point does."""

    def __init__(self) -> None:
        self.stops = 0
        self.results = [StopResult("stopped", "gateway")]
        self.go_on = threading.Event()
        self.go_on.set()
        self.faults = 0

    async def stop(self, _target: dict[str, Any]) -> list[StopResult]:
        self.stops += 1
        await asyncio.to_thread(self.go_on.wait, 10)
        if self.faults:
            self.faults -= 1
            raise OSError("the supervisor cannot be reached")
        return self.results


@pytest.fixture
def plant() -> Plant:
    return Plant()


@pytest.fixture
def url(plant: Plant) -> Iterator[str]:
    with served(endpoint_app(SECRET, plant.stop)) as address:
        yield address


@pytest.fixture
def body(state: State) -> bytes:
    return ask_to_stop(desk(state)).body


def key_of(body: bytes) -> str:
    return str(msgspec.json.decode(body)["data"]["request_id"])


def changed(body: bytes, **data: Any) -> bytes:
    call = msgspec.json.decode(body)
    call["data"].update(data)
    return msgspec.json.encode(call)


def send(url: str, body: bytes, secrets: tuple[str, ...] = (SECRET,), **headers: str) -> httpx.Response:
    signed = signed_headers(endpoint(url, secrets=list(secrets)), key_of(body), body)
    return httpx.post(url, content=body, headers={**signed, **headers}, timeout=10)


def test_a_repetition_gets_the_same_answer_and_no_second_effect(url: str, plant: Plant, body: bytes) -> None:
    first, second = send(url, body), send(url, body)
    assert first.json() == second.json()
    assert first.json()["state"] == "contained"
    assert plant.stops == 1


def test_the_same_order_in_flight_is_a_conflict(url: str, plant: Plant, body: bytes) -> None:
    plant.go_on.clear()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(send, url, body)
        eventually(lambda: plant.stops)
        assert send(url, body).status_code == 409
        plant.go_on.set()
        assert first.result().status_code == 200
    assert plant.stops == 1


@pytest.mark.parametrize(
    ("points", "state_after"),
    [
        (["stopped", "stopped"], "contained"),
        (["stopped", "failed"], "partial"),
        (["failed"], "failed"),
        ([], "failed"),
    ],
)
def test_the_state_follows_from_the_points(
    url: str, plant: Plant, body: bytes, points: list[Any], state_after: str
) -> None:
    plant.results = [StopResult(said, f"point-{n}", "why") for n, said in enumerate(points)]
    reply = send(url, body).json()
    assert (reply["state"], len(reply["enforcement_points"])) == (state_after, len(points))


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "nonsense"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()) + 3600)},
        {"webhook-id": "another"},
    ],
)
def test_a_forged_or_stale_call_does_nothing(
    url: str, plant: Plant, body: bytes, headers: dict[str, str]
) -> None:
    reply = send(url, body, **headers)
    assert (reply.status_code, plant.stops) == (401, 0)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == 401


def test_one_of_several_signatures_is_enough(url: str, plant: Plant, body: bytes) -> None:
    assert send(url, body, (OTHER_SECRET, SECRET)).status_code == 200
    assert plant.stops == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"action": "resume"},
        {"target": {"scope": "fleet"}},
        {"expires_at": "soon"},
    ],
)
def test_what_cannot_be_done_is_unprocessable(
    url: str, plant: Plant, body: bytes, fault: dict[str, Any]
) -> None:
    assert (send(url, changed(body, **fault)).status_code, plant.stops) == (422, 0)


def test_the_keys_must_agree(url: str, plant: Plant, body: bytes) -> None:
    assert send(url, body, **{"idempotency-key": '"another"'}).status_code == 422
    assert plant.stops == 0


def test_a_key_never_means_two_orders(url: str, plant: Plant, body: bytes) -> None:
    send(url, body)
    assert send(url, changed(body, reason="another")).status_code == 422
    assert plant.stops == 1


def test_a_dry_run_stops_nobody(url: str, plant: Plant, body: bytes) -> None:
    reply = send(url, changed(body, dry_run=True))
    assert (reply.json()["state"], plant.stops) == ("dry_run", 0)


def test_a_fault_frees_the_key_for_a_retry(url: str, plant: Plant, body: bytes) -> None:
    plant.faults = 1
    assert send(url, body).status_code == 500
    assert send(url, body).json()["state"] == "contained"


def test_an_order_that_is_too_long_is_not_read(url: str, plant: Plant, body: bytes) -> None:
    assert send(url, changed(body, reason="x" * 70_000)).status_code == 413
    assert plant.stops == 0
