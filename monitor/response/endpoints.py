"""Which endpoints an order goes to."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from monitor.settings import EndpointSettings


def chain_for(
    endpoints: Sequence[EndpointSettings], agent_id: str, environment: str | None
) -> list[EndpointSettings]:
    """The endpoints that serve this agent in this environment, in the order of the settings.

    An agent without an environment is served only by patterns that match the empty text.
    """
    return [
        endpoint
        for endpoint in endpoints
        if fnmatchcase(agent_id, endpoint.agents) and fnmatchcase(environment or "", endpoint.environments)
    ]
