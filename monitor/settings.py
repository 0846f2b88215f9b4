"""All settings, in one model: a TOML file, then the environment, then defaults.

``WATCHKEEPER_EDGE__PORT=4319`` sets ``[edge] port``. An unknown key is an error.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from base64 import b64decode
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from monitor.store.dsn import Dsn

PACKAGE = Path(__file__).parent

CLIENT_VARIABLES = frozenset(f"WATCHKEEPER_{name}" for name in ("CONFIG", "URL", "EDGE_URL", "TOKEN"))
"""What the commands read from the environment beside the settings."""


def shipped_rules() -> Path:
    """The folder of the rules that come with Watchkeeper, installed or in a checkout."""
    packaged = PACKAGE / "_rules"
    return packaged if packaged.is_dir() else PACKAGE.parent / "rules"


def shipped_dashboards() -> Path:
    """The folder of the dashboards that come with Watchkeeper, installed or in a checkout."""
    packaged = PACKAGE / "_dashboards"
    return packaged if packaged.is_dir() else PACKAGE.parent / "dashboards"


class SettingsError(Exception):
    """The settings cannot be used; the message names each key and the remedy."""


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Section(BaseModel):
    """A table of the settings file; unknown keys are errors."""

    # a fault is told without the values around it: one of them may be a password
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Role = Literal["viewer", "analyst", "responder", "compliance", "admin"]

Level = Literal["informational", "low", "medium", "high", "critical"]


class Mode(StrEnum):
    """What an automatic order may do (KILL-SWITCH: guardrails)."""

    OFF = "off"
    SHADOW = "shadow"
    WARN = "warn"
    ENFORCE = "enforce"


class EdgeSettings(Section):
    """Where telemetry comes in, and the limits that a sender meets."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(4318, ge=0, le=65535, description="port of events and OTLP; 0 picks a free one")
    keyless_loopback: bool = Field(
        False, description="accept senders without an API key; refused unless host is a loopback address"
    )
    dialects: list[Path] = Field(
        default_factory=list,
        description="own dialect files for OTLP; one with a shipped one's name replaces it",
    )
    max_body_bytes: int = Field(16 << 20, gt=0, description="largest request body, compressed or not")
    max_text_bytes: int = Field(64 << 10, gt=0, description="longest text column; the cut is marked")
    max_name_bytes: int = Field(512, gt=0, description="longest name or identifier")
    max_attributes: int = Field(256, gt=0, description="most attributes of one event")
    max_dead_letter_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        description="room for dead letters; when used up, the key with most loses its oldest",
    )
    max_waiting_events: int = Field(50_000, gt=0, description="events waiting for the disk before 429")
    max_waiting_bytes: int = Field(
        128 << 20, gt=0, description="bytes of request bodies held, packed and unpacked, before 429"
    )
    max_trace_spans: int = Field(
        100_000, gt=0, description="spans remembered so that late context finds the events below it"
    )
    remembered_events: int = Field(
        500_000, gt=0, description="events among which repeats are found; about 240 bytes of memory each"
    )
    max_connections: int = Field(1000, gt=0, description="open connections before 503")
    max_connections_per_address: int = Field(500, gt=0, description="the same of one address")
    head_seconds: float = Field(10, gt=0, description="longest time for a request's head, then 408")
    body_seconds: float = Field(20, gt=0, description="time for a request's body, then 408")
    min_body_rate: int = Field(4096, gt=0, description="bytes that add one second to body_seconds")
    idle_seconds: float = Field(15, gt=0, description="how long a connection may rest between requests")

    @model_validator(mode="after")
    def _largest_body_fits(self) -> EdgeSettings:
        if self.max_waiting_bytes < 3 * self.max_body_bytes:
            raise ValueError("max_waiting_bytes must be at least three times max_body_bytes")
        return self

    @property
    def loopback(self) -> bool:
        """Whether ``host`` is this machine only."""
        return is_loopback(self.host)


class RedactionPolicy(Section):
    """What is taken out of which columns of whose events, before anything is written."""

    sources: list[str] = Field(["*"], description="patterns of the sending keys' names")
    agents: list[str] = Field(["*"], description="patterns of agents")
    dialects: list[str] = Field(["*"], description="patterns of the column source")
    columns: list[str] = Field(
        ["*"],
        min_length=1,
        description="patterns of columns and attributes.NAME; ids and agent_id only by their own name",
    )
    detectors: list[str] = Field(
        ["secrets", "personal"], min_length=1, description="detectors or groups; see docs/redaction.md"
    )
    mode: Literal["mask", "fingerprint"] = Field("mask", description="fingerprints let equal values be seen")


class RedactionSettings(Section):
    """Redaction before the spool; off without a policy."""

    policies: list[RedactionPolicy] = Field(
        default_factory=list, description="the first that matches a column of an event holds"
    )
    patterns: dict[str, str] = Field(
        default_factory=dict, description="own detectors: name and regular expression (Rust's regex)"
    )
    key_file: Path | None = Field(
        None, description="key of the fingerprints; redaction.key in the data folder where absent"
    )

    @model_validator(mode="after")
    def _known(self) -> RedactionSettings:
        from monitor.sources.redaction.columns import fault
        from monitor.sources.redaction.kinds import BY_NAME, GROUPS

        _compiled(self.patterns, {*BY_NAME, *GROUPS})
        detectors = {*BY_NAME, *GROUPS, *self.patterns}
        for place, policy in enumerate(self.policies):
            for name in policy.detectors:
                if name not in detectors:
                    raise ValueError(f"policies.{place}: unknown detector {name!r}{_meant(name, detectors)}")
            for name in policy.columns:
                if found := fault(name, policy.mode):
                    raise ValueError(f"policies.{place}: {found[0]}{_meant(name, found[1])}")
        return self


def _compiled(patterns: dict[str, str], taken: set[str]) -> None:
    """Raises ValueError where a pattern cannot be a detector."""
    import polars as pl

    for name, pattern in patterns.items():
        if name in taken or not re.fullmatch("[a-z][a-z0-9_-]{0,39}", name):
            raise ValueError(
                f"patterns.{name}: small letters, digits, - and _, and no built-in detector's name"
            )
        try:
            empty = pl.Series([""]).str.contains(pattern)[0]
        except pl.exceptions.ComputeError as error:
            raise ValueError(f"patterns.{name}: {error}") from None
        if empty:
            raise ValueError(
                f"patterns.{name}: it matches where there is nothing; ask for one character at least"
            )


def _meant(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


class SpoolSettings(Section):
    """How much the spool keeps and when a segment ends."""

    max_bytes: int = Field(4 << 30, gt=0, description="size of the spool at which senders are told to wait")
    seal_bytes: int = Field(16 << 20, gt=0, description="size at which a segment is sealed")
    seal_seconds: float = Field(1.0, gt=0, description="age at which a segment is sealed")
    min_free_bytes: int = Field(
        256 << 20, ge=0, description="free space that the spool leaves on its disk for alerts and orders"
    )

    @model_validator(mode="after")
    def _segments_fit(self) -> SpoolSettings:
        # What is not sealed is not stored and cannot be trimmed: one full segment would stop all.
        if self.max_bytes < 3 * self.seal_bytes:
            raise ValueError("max_bytes must be at least three times seal_bytes")
        return self


class StoreSettings(Section):
    """Where events are kept."""

    dsn: SecretStr | None = Field(
        None,
        description="clickhouse://host:8123/database, clickhouses:// for TLS; embedded chDB where absent",
    )
    user: str | None = Field(None, description="user of the server, where the dsn names none")
    password: SecretStr | None = Field(None, description="its password, where the dsn has none")
    password_file: Path | None = Field(None, description="file that holds the password, instead")
    ca_file: Path | None = Field(
        None, description="authority of the server's certificate, PEM; the system's where absent"
    )
    client_cert: Path | None = Field(None, description="certificate to show to the server, PEM")
    client_key: Path | None = Field(None, description="its private key, where it is not in client_cert")
    connect_seconds: int = Field(5, gt=0, description="time to reach the server")
    answer_seconds: int = Field(15, gt=0, description="longest silence of the server at work")

    @model_validator(mode="after")
    def _consistent(self) -> StoreSettings:
        address = self.address
        passwords = (self.password, self.password_file, address and address.password)
        if sum(map(bool, passwords)) > 1:
            raise ValueError("a password, a password_file or one in the dsn: keep one of them")
        if self.user and address and address.user:
            raise ValueError("user is in the dsn too; keep one of them")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key is of no use without client_cert")
        if (self.ca_file or self.client_cert) and not (address and address.secure):
            raise ValueError("ca_file and client_cert are for TLS: let the dsn begin with clickhouses://")
        return self

    @property
    def address(self) -> Dsn | None:
        """``dsn`` taken apart."""
        return Dsn.parse(self.dsn.get_secret_value()) if self.dsn else None


class DetectionSettings(Section):
    """Rules, learning and the budget of false alerts."""

    rules: list[Path] = Field(default_factory=lambda: [shipped_rules()], description="files or folders")
    pipelines: list[Path] = Field(
        default_factory=list, description="pySigma processing pipelines that map foreign field names"
    )
    watch_rules: bool = Field(
        False, description="take rules and lists anew when a file changes, not only on SIGHUP"
    )
    batch_events: int = Field(10_000, gt=0, description="most events judged at once")
    snapshot_seconds: float = Field(5.0, gt=0, description="how often detector state is saved")
    false_alerts_per_1000_sessions: float = Field(
        5.0, gt=0, le=500, description="budget of false alerts of all learning detectors together"
    )
    reading_verbs: list[str] | None = Field(
        None,
        description="first words of names of tools that change nothing, where no `effect` says so; the "
        "shipped ones (docs/detectors.md) without",
    )
    refit_hours: float = Field(
        24.0, ge=1, description="how old the models of whole sessions may be before they are fitted anew"
    )


class OidcSettings(Section):
    """Signing in by an OpenID Connect provider; off without an issuer."""

    issuer: str | None = Field(None, description="the provider's address; https unless it is this machine's")
    client_id: str = Field("", description="how the provider knows this console")
    client_secret: SecretStr | None = Field(None, description="its secret there")
    scopes: str = Field("openid profile email", description="what is asked for")
    name_claim: str = Field("preferred_username", description="claim that names the person here")
    role_claim: str = Field("groups", description="claim whose values give roles")
    roles: dict[str, Role] = Field(
        default_factory=dict, description="role by value of that claim; the strongest counts"
    )

    @model_validator(mode="after")
    def _usable(self) -> OidcSettings:
        if self.issuer is None:
            return self
        address = urlsplit(self.issuer)
        if address.scheme != "https" and not (
            address.scheme == "http" and is_loopback(address.hostname or "")
        ):
            raise ValueError("issuer must begin with https://")
        if not self.client_id or self.client_secret is None:
            raise ValueError("issuer needs client_id and client_secret")
        if not self.roles:
            raise ValueError(
                f"roles must give some value of {self.role_claim!r} a role, or nobody can sign in"
            )
        return self


class ConsoleSettings(Section):
    """The web console and the API."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8600, ge=0, le=65535, description="port of pages and API; 0 picks a free one")
    public_url: str | None = Field(None, description="address that people use, for links in messages")
    oidc: OidcSettings = Field(default_factory=OidcSettings)


class SlackSettings(Section):
    """Messages to Slack; off without a token."""

    token: SecretStr | None = Field(None, description="bot token")
    channel: str = Field("#agent-alerts", description="channel to post to")
    base_url: str = Field("https://slack.com/api/", description="address of Slack's API")
    min_level: Level = Field("medium", description="mildest level that is posted")
    pictures: bool = Field(
        True, description="post a picture of the agent's activity below an alert; needs the scope files:write"
    )


class DashboardSettings(Section):
    """Dashboards of the site."""

    folders: list[Path] = Field(
        default_factory=list,
        description="folders of own dashboards; a file with a shipped one's name replaces it",
    )


class OwnAlertSettings(Section):
    """When Watchkeeper raises an alert about itself or about those who send to it."""

    silent_process_seconds: float = Field(
        10, gt=0, description="time without a sign of life after which a process counts as silent"
    )
    detection_lag_seconds: float = Field(30, gt=0, description="how far judging may be behind the spool")
    storing_lag_seconds: float = Field(
        120, gt=0, description="how long a sealed segment may wait to be stored"
    )
    spool_share: float = Field(0.8, gt=0, le=1, description="share of spool.max_bytes that is too much")
    throttled_requests: int = Field(
        10, gt=0, description="requests of one key answered 429 within the window"
    )
    rejected_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="share of a key's records refused from which the alert is medium, not low",
    )
    unmapped_share: float = Field(
        0.2, gt=0, le=1, description="share of a key's records that no map recognised"
    )
    silent_source_seconds: float = Field(
        600, gt=0, description="shortest silence of a regular sender that counts; so long it must have sent"
    )
    silent_source_factor: float = Field(
        3, ge=1, description="a sender is silent after so many times its usual gap"
    )
    silent_agents: list[str] = Field(
        default_factory=list, description="patterns of agents whose silence counts too, not their key's only"
    )
    clock_ahead_seconds: float = Field(300, gt=0, description="how far a sender's clock may be ahead")
    clock_behind_seconds: float = Field(3600, gt=0, description="how far it may be behind, delivery included")
    window_seconds: float = Field(60, gt=0, description="window over which refusals are counted")
    calm_seconds: float = Field(15, ge=0, description="how long a fault must be over to count as recovered")
    repeat_seconds: float = Field(
        900,
        gt=0,
        description="how often a lasting fault is filed again, and no message sooner after the last",
    )
    messages_per_hour: int = Field(
        20, ge=0, description="messages about itself in an hour; critical ones are not counted"
    )


class EndpointSettings(Section):
    """One kill-switch endpoint."""

    name: str = Field(description="shown in orders")
    url: str = Field(description="https address; http only where private addresses are allowed")
    secrets: list[SecretStr] = Field(min_length=1, description="Standard Webhooks secrets, newest first")
    token: SecretStr | None = Field(None, description="bearer token, where the endpoint asks for one")

    @model_validator(mode="after")
    def _callable(self) -> EndpointSettings:
        scheme = urlsplit(self.url).scheme
        if scheme != "https" and not (scheme == "http" and self.allow_private):
            raise ValueError("url must begin with https://; http:// needs allow_private = true")
        return self

    @field_validator("secrets")
    @classmethod
    def _decodable(cls, value: list[SecretStr]) -> list[SecretStr]:
        for secret in value:
            try:
                b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
            except ValueError:
                raise ValueError("must be base64, with or without `whsec_` before it") from None
        return value

    allow_private: bool = Field(False, description="allow loopback and private addresses")
    agents: str = Field("*", description="pattern of agents it serves")
    environments: str = Field("*", description="pattern of environments it serves")


class ContainmentSettings(Section):
    """The kill switch and its guardrails."""

    mode: Mode = Field(Mode.SHADOW, description="what automatic orders may do where nothing else is said")
    rules: dict[str, Mode] = Field(default_factory=dict, description="mode by rule id")
    agents: dict[str, Mode] = Field(default_factory=dict, description="mode by agent pattern; mildest wins")
    max_stops_per_hour: int = Field(
        3, ge=0, description="agents of one tenant that automatic orders may stop in an hour"
    )
    cooldown_seconds: float = Field(300, ge=0, description="time between automatic orders for one target")
    stale_seconds: float = Field(
        900, gt=0, description="age of telemetry at which a human decides, after an outage say"
    )
    protected: list[str] = Field(default_factory=list, description="agent patterns only a human may stop")
    grace_seconds: float = Field(15, ge=0, description="time after confirmation before activity counts")
    expires_seconds: float = Field(60, gt=0, description="age at which an unsent order is no longer sent")
    endpoints: list[EndpointSettings] = Field(default_factory=list, description="tried in order")


class Settings(BaseSettings):
    """Every setting of Watchkeeper."""

    model_config = SettingsConfigDict(
        env_prefix="WATCHKEEPER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    data: Path = Field(Path("watchkeeper-data"), description="folder of spool, store and state")
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    redaction: RedactionSettings = Field(default_factory=RedactionSettings)
    spool: SpoolSettings = Field(default_factory=SpoolSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    detection: DetectionSettings = Field(default_factory=DetectionSettings)
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)
    dashboards: DashboardSettings = Field(default_factory=DashboardSettings)
    slack: SlackSettings = Field(default_factory=SlackSettings)
    own_alerts: OwnAlertSettings = Field(default_factory=OwnAlertSettings)
    containment: ContainmentSettings = Field(default_factory=ContainmentSettings)
    lists: dict[str, list[str | int | float]] = Field(
        default_factory=dict, description="the site's lists by name: values of the placeholders in rules"
    )

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as keyword arguments."""
        return env_settings, init_settings

    @property
    def spool_folder(self) -> Path:
        """The spool's folder."""
        return self.data / "spool"

    @property
    def rule_sets_folder(self) -> Path:
        """The folder of the rule sets that are or were in force."""
        return self.data / "rules"

    @property
    def models_folder(self) -> Path:
        """The folder of the models that were fitted on stored sessions."""
        return self.data / "models"

    @property
    def dead_letters_folder(self) -> Path:
        """The folder of what was refused."""
        return self.data / "dead-letters"

    @property
    def redaction_key(self) -> Path:
        """The file with the key of redaction's fingerprints."""
        return self.redaction.key_file or self.data / "redaction.key"

    @property
    def state_file(self) -> Path:
        """The state database."""
        return self.data / "state.db"

    def masked(self) -> dict[str, Any]:
        """The effective settings as JSON values, secrets masked."""
        return self.model_dump(mode="json")


def _said(fault: Any, file: Path | None) -> str:
    """A validation fault as a line for people: where, what, and the name that was probably meant."""
    where = ".".join(map(str, fault["loc"]))
    told = f"{file}: {where}" if file else where
    if fault["type"] != "extra_forbidden":
        return f"{told}: {fault['msg'].removeprefix('Value error, ')}"
    near = get_close_matches(where, list(_names(Settings, "")), n=1)
    return f"{told}: unknown setting" + (f"; did you mean {near[0]}?" if near else "")


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}.")


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """Read settings from ``file`` (or WATCHKEEPER_CONFIG) and the environment.

    Raises SettingsError with one line per fault, naming the key.
    """
    if file is None and (named := os.environ.get("WATCHKEEPER_CONFIG")):
        file = Path(named)
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except OSError as error:
            raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file}: not valid TOML: {error}") from None
    values.update({key: value for key, value in overrides.items() if value is not None})
    unknown = [
        name
        for name in os.environ
        if name.startswith("WATCHKEEPER_")
        and name not in CLIENT_VARIABLES
        and name.removeprefix("WATCHKEEPER_").split("__")[0].lower() not in Settings.model_fields
    ]
    if unknown:
        raise SettingsError("\n".join(f"{name}: unknown setting in the environment" for name in unknown))
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_said(fault, file) for fault in error.errors())) from None
    if settings.edge.keyless_loopback and not settings.edge.loopback:
        raise SettingsError(
            "edge.keyless_loopback: only with a loopback edge.host; "
            "create a key with `watchkeeper keys create` instead"
        )
    return settings
