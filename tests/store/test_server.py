"""A real ClickHouse server: killed in mid-insert, taking over an embedded folder, with passwords and TLS."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from monitor.events import arrow_batch
from monitor.settings import Settings
from monitor.store.clickhouse import EventStore, StoreError, placed
from monitor.store.queries import Readers
from tests.builders import event
from tests.clickhouse_server import PASSWORD, USER, ClickHouse, clickhouse
from tests.daemons import Daemon, until
from tests.scenarios.test_daemon import line

pytestmark = pytest.mark.server

ROWS = 2_000


def segment(number: int) -> pa.Table:
    """A segment's events; the same number, the same rows."""
    events = [event(at=row, event_id=f"e-{number}-{row}", session_id=f"s-{number}") for row in range(ROWS)]
    return placed(pa.table(arrow_batch(events)), number)


def opened(server: ClickHouse, tmp_path: Path) -> EventStore:
    return EventStore.open(Settings(data=tmp_path, store=server.settings()))


def test_a_server_killed_in_mid_insert_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    cut = 0
    with clickhouse(tmp_path / "server") as server:
        store = opened(server, tmp_path)
        for number in range(12):
            table = segment(number)
            begun = time.monotonic()
            if number == 0:
                store.insert(table, f"token-{number}")
                usual = time.monotonic() - begun
            killer = threading.Timer(rng.uniform(0, usual), server.kill)
            killer.start()
            try:
                store.insert(table, f"token-{number}")
            except StoreError as error:
                cut += "the connection broke off" in str(error)
            killer.join()
            server.start()
            # repeated in any case: after an answer it changes nothing, without one nobody knows
            store.insert(table, f"token-{number}")
        assert cut >= 2, "hardly an insert was cut off: the test shows nothing"
        found = store.writer.query(
            "SELECT segment, count(), uniqExact(event_id) FROM events GROUP BY segment"
        )
        assert sorted(found.result_rows) == [(number, ROWS, ROWS) for number in range(12)]
        store.close()


def test_events_go_on_being_answered_and_judged_while_the_server_is_dead(tmp_path: Path) -> None:
    with clickhouse(tmp_path / "server") as server:
        store = server.settings()
        settings = f'[store]\ndsn = "{store["dsn"]}"\nuser = "{USER}"\npassword = "{PASSWORD}"\n'
        daemon = Daemon(tmp_path / "data", settings)
        try:
            daemon.start()
            sent = [line(at=i, session_id=f"s{i // 50}") for i in range(1_500)]
            daemon.client.send(sent[:500], live=True)
            until(lambda: daemon.metrics()["console"]["stored_events"] >= 500, "the first events stored")
            server.kill()
            daemon.client.send(sent[500:1_000], live=True)
            until(lambda: daemon.metrics()["detection"]["judged_events"] >= 1_000, "judged without a store")
            server.start()
            daemon.client.send(sent[1_000:], live=True)
            until(lambda: daemon.metrics()["console"]["stored_events"] >= 1_500, "all of them stored")
        finally:
            daemon.stop()
        reader = opened(server, tmp_path)
        counted = reader.writer.query("SELECT count(), uniqExact(event_id) FROM events").result_rows
        assert counted == [(1_500, 1_500)]
        reader.close()
        assert PASSWORD not in daemon.log.read_text()


def test_a_held_server_holds_up_neither_answers_nor_pages(tmp_path: Path) -> None:
    with clickhouse(tmp_path / "server") as server:
        store = server.settings()
        settings = (
            f'[store]\ndsn = "{store["dsn"]}"\nuser = "{USER}"\npassword = "{PASSWORD}"\nanswer_seconds = 2\n'
        )
        daemon = Daemon(tmp_path / "data", settings)
        try:
            daemon.start()
            server.pause(going=False)
            begun = time.monotonic()
            daemon.client.send([line(at=i) for i in range(50)], live=True)
            until(lambda: daemon.metrics()["detection"]["judged_events"] >= 50, "judged while it is held")
            until(lambda: "no answer within" in daemon.log.read_text(), "storing says why it fails")
            assert httpx.get(f"{daemon.runtime.console_url}/healthz", trust_env=False).is_success
            assert time.monotonic() - begun < 20
            begun = time.monotonic()
            daemon.stop()
            assert time.monotonic() - begun < 15
            assert "did not end in time" not in daemon.log.read_text()
            server.pause(going=True)
            daemon.start()
            reader = opened(server, tmp_path)
            until(lambda: reader.writer.command("SELECT count() FROM events") == 50, "stored once it goes on")
            reader.close()
        finally:
            server.pause(going=True)
            daemon.stop()


def test_an_embedded_folder_opens_in_the_server_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    daemon = Daemon(data)
    sent = [line(at=i, session_id=f"s{i // 50}") for i in range(600)]
    try:
        daemon.start()
        daemon.client.send(sent[:300], live=True)
        daemon.stop()
        with clickhouse(tmp_path / "server", data / "clickhouse") as server:
            store = server.settings()
            grown = f'[store]\ndsn = "{store["dsn"]}"\nuser = "{USER}"\npassword = "{PASSWORD}"\n'
            daemon = Daemon(data, grown)
            daemon.start()
            daemon.client.send(sent, live=True)
            until(lambda: daemon.metrics()["console"]["stored_events"] >= 300, "the new events stored")
            daemon.stop()
            reader = opened(server, tmp_path)
            counted = reader.writer.query("SELECT count(), uniqExact(event_id) FROM events").result_rows
            assert counted == [(600, 600)]
            reader.close()
    finally:
        daemon.stop()


def test_tokens_of_the_embedded_store_hold_on_the_server(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from monitor.settings import load;"
        "from monitor.store.clickhouse import EventStore; from tests.store.test_server import segment;"
        "store = EventStore.open(load(data=Path(sys.argv[1])));"
        "store.insert(segment(1), 'token-1'); store.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with clickhouse(tmp_path / "server", tmp_path / "clickhouse") as server:
        store = opened(server, tmp_path)
        store.insert(segment(1), "token-1")
        store.insert(segment(2), "token-2")
        assert store.writer.query("SELECT count() FROM events").result_rows == [(2 * ROWS,)]
        store.close()


def test_a_wrong_password_is_one_clear_line_without_it(tmp_path: Path, server: ClickHouse) -> None:
    settings = {**server.settings(), "password": "not-this-one"}
    with pytest.raises(StoreError, match="refuses the user or the password") as refused:
        EventStore.open(Settings(data=tmp_path, store=settings))
    assert "not-this-one" not in str(refused.value)
    assert "store.password" in str(refused.value)


def test_an_unknown_host_is_named_with_the_remedy(tmp_path: Path) -> None:
    settings = {"dsn": "clickhouse://no-such-host.invalid", "user": USER, "password": PASSWORD}
    with pytest.raises(StoreError, match=r"no-such-host\.invalid:8123.*unknown; check store\.dsn"):
        EventStore.open(Settings(data=tmp_path, store=settings))


def test_a_failing_server_puts_no_statement_and_no_value_into_errors_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with clickhouse(tmp_path / "server") as server:
        store = opened(server, tmp_path)
        readers = Readers(store)
        asked = readers.session_events("default", "what an agent calls its session")
        assert asyncio.run(asked) == []
        server.kill()
        caplog.clear()
        with pytest.raises(StoreError) as written:
            store.insert(segment(1), "token-1")
        asked = readers.session_events("default", "what an agent calls its session")
        with pytest.raises(StoreError) as read:
            asyncio.run(asked)
        readers.close()
        store.close()
    assert "2000 events were not stored: nobody answers" in str(written.value)
    everything = "".join(traceback.format_exception(written.value) + traceback.format_exception(read.value))
    for told in (everything, caplog.text):
        assert not [
            word for word in ("what an agent", "what+an", "INSERT", "SELECT", PASSWORD) if word in told
        ]


def test_the_password_may_stand_in_a_file(tmp_path: Path, server: ClickHouse) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    settings: dict[str, Any] = {**server.settings(), "password": None, "password_file": secret}
    EventStore.open(Settings(data=tmp_path, store=settings)).close()
    with pytest.raises(StoreError, match="cannot be read"):
        EventStore.open(Settings(data=tmp_path, store={**settings, "password_file": tmp_path / "none"}))


# --- TLS, by a relay before the server: the server of the tests has none itself -----------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("good", "other"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *(
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=localhost",
                    "-addext",
                    "subjectAltName=DNS:localhost",
                ),
                *("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")),
            ],
            check=True,
            capture_output=True,
        )
    return folder


@pytest.fixture
def relay(request: pytest.FixtureRequest, server: ClickHouse, certificates: Path) -> Iterator[int]:
    """The port of a TLS endpoint that passes everything on; with a parameter, to who has that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "good.pem", certificates / "good.key")
    if wanted := getattr(request, "param", None):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / f"{wanted}.pem")
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
        except OSError:
            return
        finally:
            sink.close()

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                inner = context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                continue
            outer = socket.create_connection(("127.0.0.1", server.port))
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listening.getsockname()[1]
    listening.close()


def test_a_server_behind_tls_is_used_with_the_right_certificate_only(
    tmp_path: Path, relay: int, certificates: Path
) -> None:
    settings: dict[str, Any] = {
        "dsn": f"clickhouses://localhost:{relay}/tls",
        "user": USER,
        "password": PASSWORD,
        "connect_seconds": 3,
    }
    trusted = Settings(data=tmp_path, store={**settings, "ca_file": certificates / "good.pem"})
    store = EventStore.open(trusted)
    assert store.insert(segment(1), "tls-1") == ROWS
    store.close()
    with pytest.raises(StoreError, match=r"certificate is not trusted.*store\.ca_file"):
        EventStore.open(Settings(data=tmp_path, store={**settings, "ca_file": certificates / "other.pem"}))
    with pytest.raises(StoreError, match="is not there"):
        EventStore.open(Settings(data=tmp_path, store={**settings, "ca_file": tmp_path / "none.pem"}))


@pytest.mark.parametrize("relay", ["other"], indirect=True)
def test_a_server_that_asks_for_a_certificate_gets_it_and_the_password_too(
    tmp_path: Path, relay: int, certificates: Path
) -> None:
    settings: dict[str, Any] = {
        "dsn": f"clickhouses://localhost:{relay}/mutual",
        "user": USER,
        "password": PASSWORD,
        "ca_file": certificates / "good.pem",
        "client_cert": certificates / "other.pem",
        "client_key": certificates / "other.key",
    }
    store = EventStore.open(Settings(data=tmp_path, store=settings))
    assert store.insert(segment(1), "mutual-1") == ROWS
    store.close()
    without = {**settings, "client_cert": None, "client_key": None}
    with pytest.raises(StoreError, match=f"localhost:{relay}"):
        EventStore.open(Settings(data=tmp_path, store=without))
    wrong = {**settings, "password": "not-this-one"}
    with pytest.raises(StoreError, match="refuses the user or the password"):
        EventStore.open(Settings(data=tmp_path, store=wrong))
