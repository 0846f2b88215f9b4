"""Incidents on their pages and over the API."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from monitor.events import arrow_batch
from monitor.people.accounts import People
from monitor.store.clickhouse import EventStore, placed
from monitor.store.state import Alert, AuditEntry, Incident
from tests.builders import event
from tests.web.conftest import Browser, key
from tests.web.seeding import HOSTILE, Stand, finding

WHO = {"title": "Paid twice", "level": "high"}


def incident_of(stand: Stand, alert: Alert) -> Incident:
    with stand.state.read() as session:
        return session.get_one(Incident, session.get_one(Alert, alert.id).incident_id)


def do(browser: Browser, incident: Incident, what: str, **form: Any) -> Any:
    return browser.post(f"/incidents/{incident.id}/{what}", data={"csrf": browser.csrf, **form})


def test_the_list_shows_what_is_open_gravest_first(stand: Stand, browser: Browser) -> None:
    stand.file(finding("a", agent_id="calm", level="low", title="Mild"), finding("b", agent_id="wild", **WHO))
    page = browser.get("/incidents").text
    assert page.index("Paid twice") < page.index("Mild")
    assert "Mild" not in browser.get("/incidents?agent=wild").text
    assert "Paid twice" not in browser.get("/incidents?mine=true").text
    assert "Paid twice" not in browser.get("/incidents?show=closed").text


def test_its_page_tells_all_that_happened_in_order(stand: Stand, browser: Browser, store: EventStore) -> None:
    told = event(
        "tool.executed", event_id="paid-1", agent_id="payer", session_id="s-pay", tool_name="send_payment"
    )
    store.insert(placed(pa.Table.from_batches([arrow_batch([told])]), 31), token="paid")
    [alert] = stand.file(finding("a", agent_id="payer", session_id="s-pay", event_ids=("paid-1",), **WHO))
    incident = incident_of(stand, alert)
    do(browser, incident, "comments", text="The bank was called.")
    do(browser, incident, "take", version=1)
    with stand.state.write() as session:
        stand.desk.change(session, alert.id, "bea", status="acknowledged", reason="")
    page = browser.get(f"/incidents/{incident.id}").text
    timeline = page[page.index("<h2>Timeline") :]
    order = ["send_payment", "fired", "The bank was called.", "took it", "status of"]
    places = [timeline.index(words) for words in order]
    assert places == sorted(places)
    assert "/sessions/s-pay" in page


def test_it_is_taken_handed_over_and_closed_with_a_verdict(stand: Stand, browser: Browser) -> None:
    People(stand.state).add("bea", "analyst", "test")
    [alert] = stand.file(finding("a", **WHO))
    incident = incident_of(stand, alert)
    assert do(browser, incident, "take", version=1).status_code == 303
    note = "Known: the invoice was forged.\nOpen: call the bank."
    assert do(browser, incident, "hand-over", to="bea", note=note, version=2).status_code == 303
    page = browser.get(f"/incidents/{incident.id}").text
    assert "the invoice was forged" in page
    assert "handed it over to bea" in page
    assert do(browser, incident, "close", verdict="true_positive", reason=" ", version=3).status_code == 409
    stale = do(browser, incident, "close", verdict="true_positive", reason="paid back", version=2)
    assert stale.status_code == 412
    assert do(browser, incident, "close", verdict="true_positive", reason="paid back").status_code == 303
    with stand.state.read() as session:
        assert session.get_one(Alert, alert.id).verdict == "true_positive"
        acts = [entry.action for entry in session.query(AuditEntry) if entry.action.startswith("incident.")]
    assert acts == ["incident.take", "incident.hand-over", "incident.close"]
    assert "Close incident" not in browser.get(f"/incidents/{incident.id}").text


def test_incidents_are_merged_and_split(stand: Stand, browser: Browser) -> None:
    one, other = stand.file(finding("a", **WHO), finding("b", agent_id="another"))
    first, second = incident_of(stand, one), incident_of(stand, other)
    answer = do(browser, first, "merge", other=second.id, reason="one campaign")
    assert answer.headers["location"] == f"/incidents/{second.id}"
    assert f'merged into <a href="/incidents/{second.id}"' in browser.get(f"/incidents/{first.id}").text
    answer = do(browser, second, "split", alert=[one.id], reason="another story")
    fresh = incident_of(stand, one)
    assert answer.headers["location"] == f"/incidents/{fresh.id}"
    assert fresh.id not in (first.id, second.id)


def test_e_leads_to_the_incident_and_gathers_what_is_selected(stand: Stand, browser: Browser) -> None:
    one, other = stand.file(finding("a"), finding("b", agent_id="another"))
    headers = {"X-CSRF-Token": browser.csrf, "HX-Request": "true"}
    answer = browser.post("/incidents/gather", data={"alert": [one.id]}, headers=headers)
    assert answer.headers["hx-redirect"] == f"/incidents/{incident_of(stand, one).id}"
    answer = browser.post("/incidents/gather", data={"alert": [one.id, other.id]}, headers=headers)
    assert incident_of(stand, one).id == incident_of(stand, other).id == answer.headers["hx-redirect"][11:]


def test_what_agents_call_themselves_stays_harmless(stand: Stand, browser: Browser) -> None:
    [alert] = stand.file(
        finding("a", agent_id=HOSTILE, session_id=HOSTILE, title=HOSTILE, reason=HOSTILE * 900)
    )
    incident = incident_of(stand, alert)
    do(browser, incident, "comments", text=HOSTILE)
    for page in (browser.get("/incidents").text, browser.get(f"/incidents/{incident.id}").text):
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert len(page) < 200_000


@pytest.mark.parametrize("what", ["", "/take", "/close"])
def test_an_incident_of_another_tenant_is_not_there(stand: Stand, stranger: TestClient, what: str) -> None:
    [alert] = stand.file(finding("a"))
    path = f"/api/v1/incidents/{incident_of(stand, alert).id}{what}"
    rival = key(stand, "read", "triage", tenant="rival")
    body = {"verdict": "test", "reason": "mine"} if what == "/close" else None
    answer = stranger.post(path, json=body, headers=rival) if what else stranger.get(path, headers=rival)
    assert answer.status_code == 404
    assert stranger.get("/api/v1/incidents", headers=rival).json()["items"] == []


def test_programs_do_all_that_people_do(stand: Stand, stranger: TestClient) -> None:
    People(stand.state).add("bea", "analyst", "test")
    headers = key(stand, "read", "triage")
    alerts = stand.file(*(finding(name, agent_id=f"agent-{name}") for name in "abc"))
    api = "/api/v1/incidents"

    def post(path: str, body: dict[str, Any] | None = None, **more: str) -> Any:
        return stranger.post(f"{api}{path}", json=body, headers={**headers, **more})

    first = stranger.get(api, headers=headers, params={"limit": 2}).json()
    rest = stranger.get(api, headers=headers, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    made = post("", {"alerts": [alert.id for alert in alerts]}).json()
    read = stranger.get(f"{api}/{made['id']}", headers=headers)
    assert len(read.json()["alerts"]) == 3
    taken = post(f"/{made['id']}/take", None, **{"If-Match": read.headers["etag"]})
    assert taken.json()["status"] == "in_progress"
    assert post(f"/{made['id']}/take", None, **{"If-Match": read.headers["etag"]}).status_code == 412
    assert post(f"/{made['id']}/comments", {"text": "hello"}).status_code == 201
    split = post(f"/{made['id']}/split", {"alerts": [alerts[0].id], "reason": "other"}).json()
    assert split["alerts"] == 1
    assert post(f"/{split['id']}/merge", {"into": made["id"], "reason": "no"}).json()["alerts"] == 3
    assert post(f"/{made['id']}/hand-over", {"to": "bea", "note": "all"}).json()["owner"] == "bea"
    assert post(f"/{made['id']}/give-back", {"reason": "ill"}).json()["owner"] is None
    ended = post(f"/{made['id']}/close", {"verdict": "true_positive", "reason": "contained"})
    assert (ended.json()["status"], ended.json()["verdict"]) == ("closed", "true_positive")
    log = stranger.get(f"{api}/{made['id']}", headers=headers).json()["log"]
    assert [entry["kind"] for entry in log] == [
        "opened", "taken", "comment", "split", "merged", "handover", "given_back", "closed",
    ]  # fmt: skip
