"""Settings: one model, clear faults, secrets never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.settings import Mode, SettingsError, load

ENDPOINT = "[[containment.endpoints]]\nname = 'site'\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "watchkeeper.toml"
    file.write_text(text)
    return file


def test_defaults_watch_this_machine_only_and_order_nothing() -> None:
    settings = load()
    assert settings.edge.loopback
    assert not settings.edge.keyless_loopback
    assert settings.containment.mode is Mode.SHADOW
    assert settings.data.is_absolute()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_EDGE__PORT", "4999")
    settings = load(written(tmp_path, "[edge]\nport = 4400\nhost = '::1'\n"))
    assert (settings.edge.port, settings.edge.host) == (4999, "::1")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[edge]\nprot = 1\n", "edge.prot"),
        ("nonsense = 1\n", "nonsense"),
        ("[edge]\nport = 'many'\n", "edge.port"),
        ("[edge\n", "not valid TOML"),
        ("[slack]\nmin_level = 'severe'\n", "slack.min_level"),
        (ENDPOINT + "url = 'http://example.org/stop'\nsecrets = ['c2VjcmV0']\n", "allow_private"),
        (ENDPOINT + "url = 'https://example.org/stop'\nsecrets = ['not base64!']\n", "base64"),
        ("[edge]\nprot = 1\n", "did you mean edge.port"),
        ("[containment]\nmode = 'kill-everything'\n", "containment.mode"),
        ("[edge]\nhost = '0.0.0.0'\nkeyless_loopback = true\n", "edge.keyless_loopback"),
    ],
)
def test_a_fault_names_its_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named.replace(".", r"\.")):
        load(written(tmp_path, text))


def test_an_unknown_variable_of_the_environment_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_EGDE__PORT", "1")
    with pytest.raises(SettingsError, match="WATCHKEEPER_EGDE__PORT"):
        load()


def test_secrets_are_masked_wherever_settings_are_shown(tmp_path: Path) -> None:
    settings = load(
        written(
            tmp_path,
            "[slack]\ntoken = 'xoxb-very-secret'\n[store]\ndsn = 'clickhouse://u:hidden@h/db'\n"
            "[[containment.endpoints]]\nname = 'site'\nurl = 'https://example.org/stop'\n"
            "secrets = ['whsec_deep']\n",
        )
    )
    shown = f"{settings!r} {settings.masked()}"
    assert "**********" in shown
    assert not [secret for secret in ("very-secret", "hidden", "whsec_deep") if secret in shown]
