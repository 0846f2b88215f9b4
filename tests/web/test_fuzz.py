"""Whatever is sent: no error of our own, no hang, and every answer as its schema says."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from monitor.sources.keys import Keys
from monitor.store.clickhouse import EventStore
from monitor.web.api.cursors import cursor
from tests.response.responders import served
from tests.sources.live import LiveEdge
from tests.web.seeding import console, finding

FITS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SECONDS = 5.0
"""An answer that takes longer counts as none."""

BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, store: EventStore) -> Iterator[tuple[str, str]]:
    """A console over a real server with something in it: its address, and a key that may do anything."""
    with console(tmp_path_factory.mktemp("fuzz") / "data", store) as stand:
        stand.file(*(finding(f"f{number}") for number in range(20)))
        _, key = Keys(stand.state).create("fuzz", scopes=("read", "triage", "respond", "audit", "admin"))
        with served(stand.app) as url:
            yield url.removesuffix("/kill"), key


@pytest.mark.parametrize("authorised", [True, False])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_the_api_answers_as_its_schema_says(
    address: tuple[str, str], mode: GenerationMode, authorised: bool
) -> None:
    url, key = address
    headers = {"Authorization": f"Bearer {key}"} if authorised else {}
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json").exclude(
        path="/readyz"
    )  # whose 503 is meant
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(base_url=url, headers=headers, checks=FITS, timeout=SECONDS)

        with contextlib.suppress(Unsatisfiable):  # an operation without input has nothing to get wrong
            holds()
    assert tried > 100


EXTREMES = [
    ("/api/v1/alerts", {"created_after": 10**30}),
    ("/api/v1/alerts", {"created_after": -(10**30)}),
    ("/api/v1/alerts", {"cursor": cursor(10**40, "a")}),
    ("/api/v1/alerts", {"cursor": cursor(-(2**63) - 1, "a")}),
    ("/api/v1/alerts", {"agent": ["a"] * 2000}),
    ("/api/v1/orders", {"state": ["\x00\ud7ff"] * 1100}),
    ("/api/v1/orders", {"cursor": "é" * 200}),
    ("/api/v1/alerts/" + "%00" * 100, {}),
    ("/api/v1/orders/%ff%fe", {}),
    ("/api/v1/alerts", {"session": "\U0010ffff" * 5000}),
]


@pytest.mark.parametrize(("path", "query"), EXTREMES)
def test_values_at_the_edge_of_what_a_database_holds_are_no_fault(
    address: tuple[str, str], path: str, query: dict[str, Any]
) -> None:
    url, key = address
    answer = httpx.get(
        f"{url}{path}", params=query, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS
    )
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("version", [2**63, -(2**63) - 1, 10**40])
def test_a_version_that_no_alert_can_have_is_refused(address: tuple[str, str], version: int) -> None:
    url, key = address
    headers = {"Authorization": f"Bearer {key}"}
    alert = httpx.get(f"{url}/api/v1/alerts", headers=headers).json()["items"][0]["id"]
    change = {"status": "acknowledged", "expected_version": version}
    answer = httpx.post(f"{url}/api/v1/alerts/{alert}/changes", json=change, headers=headers, timeout=SECONDS)
    assert answer.status_code in (409, 422), answer.text


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEdge]:
    live = LiveEdge(tmp_path_factory.mktemp("edge") / "data")
    yield live
    live.stop()


EVENT = {"event_type": "tool.requested", "agent_id": "a", "timestamp": "2026-03-02T09:00:00Z"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*EVENT, "attributes", "amount", "data_accessed", "input_tokens"]) | st.text(
    max_size=9
)
NEARLY = st.dictionaries(NAMES, VALUES, max_size=4).map(
    lambda more: json.dumps({**EVENT, **more}, ensure_ascii=False).encode("utf-8", "surrogatepass")
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with some of its bytes cut out, turned over or put in."""
    raw = bytearray(draw(NEARLY))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(raw)


LINES = st.lists((NEARLY | damaged() | st.binary(min_size=1, max_size=40)), min_size=1, max_size=6).map(
    lambda lines: [kept for line in lines if (kept := line.replace(b"\n", b" ").strip())]
)
MARKED = settings(BOUNDED, max_examples=150)


def send(edge: LiveEdge, body: bytes, packed: bool, **headers: str) -> httpx.Response:
    """POST it, as it is or as gzip."""
    if packed:
        return edge.post(gzip.compress(body), Content_Encoding="gzip", **headers)
    return edge.post(body, **headers)


@MARKED
@given(lines=LINES.filter(bool), packed=st.booleans())
def test_each_line_is_taken_or_refused_and_none_is_forgotten(
    edge: LiveEdge, lines: list[bytes], packed: bool
) -> None:
    events, letters = edge.committer.counters.events, edge.committer.counters.rejected
    answer = send(edge, b"\n".join(lines), packed, Content_Type="application/x-ndjson")
    assert answer.status_code in (200, 422), answer.text
    told = {"accepted": 0, "duplicates": 0, **answer.json()}
    assert told["accepted"] + len(told["rejected"]) == len(lines)
    refused = [fault["index"] for fault in told["rejected"]]
    assert refused == sorted(set(refused))
    assert all(fault["reason"] for fault in told["rejected"])
    assert edge.committer.counters.events - events == told["accepted"] - told["duplicates"]
    assert edge.committer.counters.rejected - letters == len(refused)


@MARKED
@given(
    body=st.binary(max_size=200)
    | damaged()
    | st.lists(damaged(), max_size=3).map(b",".join).map(b"[%b]".__mod__),
    coding=st.sampled_from(["", "gzip", "zstd", "identity", "br", "gzip, gzip"]),
    kind=st.sampled_from(["", "application/json", "application/x-ndjson", "text/plain", "nonsense; ="]),
    packed=st.booleans(),
)
def test_whatever_the_body_is_the_edge_answers_it(
    edge: LiveEdge, body: bytes, coding: str, kind: str, packed: bool
) -> None:
    raw = gzip.compress(body) if packed else body
    answer = edge.post(raw, Content_Encoding=coding, Content_Type=kind)
    assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    assert answer.headers["content-type"].startswith(("application/json", "application/problem+json"))


def test_after_all_that_the_edge_still_takes_events_and_reads_its_own_spool(edge: LiveEdge) -> None:
    assert edge.post(json.dumps({**EVENT, "event_id": "last"}).encode()).json()["accepted"] == 1
    stored = edge.stored()
    assert len(stored) == edge.committer.counters.events
    assert stored[-1]["event_id"] == "last"
