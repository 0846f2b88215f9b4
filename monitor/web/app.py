"""The console: pages for people and an API for programs, in one application."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.sessions import SessionMiddleware

from monitor import __version__
from monitor.alerting.alerts import AlertDesk
from monitor.response.orders import OrderDesk
from monitor.settings import Settings
from monitor.sources.keys import Keys
from monitor.store.queries import Readers
from monitor.store.state import State
from monitor.web import health, problems
from monitor.web.api import agents as api_agents
from monitor.web.api import alerts as api_alerts
from monitor.web.api import attributes as api_attributes
from monitor.web.api import dashboards as api_dashboards
from monitor.web.api import dead_letters as api_dead_letters
from monitor.web.api import hunts as api_hunts
from monitor.web.api import incidents as api_incidents
from monitor.web.api import orders as api_orders
from monitor.web.api import people as api_people
from monitor.web.api import rules as api_rules
from monitor.web.api import sessions as api_sessions
from monitor.web.api import silences as api_silences
from monitor.web.api import status as api_status
from monitor.web.context import Console
from monitor.web.headers import SecurityHeaders
from monitor.web.pages import (
    account,
    agents,
    alerts,
    audit,
    changes,
    dashboards,
    incidents,
    live,
    login,
    orders,
    people,
    rules,
    sessions,
    silences,
    status,
)
from monitor.web.provider import Provider
from monitor.web.templating import STATIC

LARGEST_BODY = 1 << 20


def console_app(
    state: State,
    settings: Settings,
    readers: Readers,
    alert_desk: AlertDesk,
    order_desk: OrderDesk,
    store_ready: Callable[[], object],
) -> FastAPI:
    """The ASGI application.

    ``store_ready`` raises, or returns False, while the event store does not answer.
    FastAPI's own documentation pages load scripts from another host, so there is only
    /openapi.json.
    """
    app = FastAPI(
        title="Watchkeeper",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        max_body_size=LARGEST_BODY,
        responses=problems.DOCUMENTED,
    )
    oidc = settings.console.oidc
    provider = Provider(oidc) if oidc.issuer else None
    console = Console(state, settings, readers, alert_desk, order_desk, store_ready, Keys(state), provider)
    app.state.console = console
    app.add_middleware(SecurityHeaders)
    if provider is not None:
        # what must be remembered until the provider sends the browser back
        app.add_middleware(
            SessionMiddleware,
            secret_key=secrets.token_hex(32),
            session_cookie="__Host-signing-in" if console.https else "signing-in",
            max_age=600,
            https_only=console.https,
        )
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    problems.install(app)
    # The stream and the fragments come before /alerts/{alert_id}, which would take them for an id.
    pages = (
        live,
        login,
        silences,
        alerts,
        changes,
        orders,
        status,
        account,
        people,
        audit,
        sessions,
        agents,
        rules,
        dashboards,
        incidents,
    )
    for part in (
        *pages,
        api_agents,
        api_alerts,
        api_orders,
        api_incidents,
        api_dead_letters,
        api_hunts,
        api_attributes,
        api_status,
        api_dashboards,
        api_people,
        api_silences,
        api_sessions,
        api_rules,
        health,
    ):
        app.include_router(part.router)
    return app
