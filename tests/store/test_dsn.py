"""The settings of a ClickHouse server: one line for the address, and nothing that contradicts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.settings import SettingsError, load
from monitor.store.dsn import Dsn


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("clickhouse://db", Dsn(False, "db", 8123, "watchkeeper", None, None)),
        ("clickhouses://db/", Dsn(True, "db", 8443, "watchkeeper", None, None)),
        ("https://ana@db:9440/events", Dsn(True, "db", 9440, "events", "ana", None)),
        ("http://ana:p%40ss%2Fword@[::1]:1/x", Dsn(False, "::1", 1, "x", "ana", "p@ss/word")),
    ],
)
def test_a_dsn_says_where_the_server_is(text: str, meant: Dsn) -> None:
    assert Dsn.parse(text) == meant


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("postgres://db", "must begin with clickhouse://"),
        ("db:8123", "must begin with clickhouse://"),
        ("clickhouse://", "must be clickhouse://user:password@host"),
        ("clickhouse://ana:hunter2/x@db:8123", "%2F"),
        ("clickhouse://ana@db:hunter2", "must be clickhouse://user:password@host"),
        ("clickhouse://db:99999/x", "must be clickhouse://user:password@host"),
        ("clickhouse://db/x; DROP DATABASE default", "letters, digits and underscores"),
        ("clickhouse://ana:hunter2@db/x?verify=false", "options under store"),
        ("clickhouse://ana:hunter2#@db/x", "%23"),
    ],
)
def test_a_wrong_dsn_is_refused_with_the_remedy_and_without_its_password(text: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy) as fault:
        load(store={"dsn": text})
    assert "hunter2" not in str(fault.value)
    with pytest.raises(ValueError, match=remedy) as fault:
        Dsn.parse(text)
    assert "hunter2" not in str(fault.value)


def test_a_password_does_not_show_in_the_address() -> None:
    assert "hunter2" not in repr(Dsn.parse("clickhouse://ana:hunter2@db"))


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("dsn = 'clickhouse://ana:hunter2@db'\npassword = 'hunter2'", "keep one of them"),
        ("dsn = 'clickhouse://db'\npassword = 'hunter2'\npassword_file = 'secret'", "keep one of them"),
        ("dsn = 'clickhouse://ana@db'\nuser = 'ben'", "user is in the dsn too"),
        ("dsn = 'clickhouse://db'\nca_file = 'ca.pem'", "clickhouses://"),
        ("ca_file = 'ca.pem'", "clickhouses://"),
        ("dsn = 'clickhouses://db'\nclient_key = 'key.pem'", "client_cert"),
        ("dsn = 'clickhouse://db'\nanswer_seconds = 0", "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, section: str, told: str) -> None:
    file = tmp_path / "watchkeeper.toml"
    file.write_text(f"[store]\n{section}\n")
    with pytest.raises(SettingsError, match=told) as fault:
        load(file)
    assert "hunter2" not in str(fault.value)


def test_the_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_STORE__PASSWORD", "hunter2")
    store = load(store={"dsn": "clickhouse://ana@db"}).store
    assert store.password is not None
    assert store.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(store)
