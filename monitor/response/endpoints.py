"""Which endpoints an order goes to."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from monitor.settings import EndpointSettings


def chains_for(
    endpoints: Sequence[EndpointSettings], agent_id: str, environment: str | None
) -> list[list[EndpointSettings]]:
    """Chains of endpoints for this agent; in each, the first that confirms will do.

    In a known environment those that serve it are one chain, in the order of the settings.
    Where the environment is not known, the agent may run in any: then there is one chain
    for each pattern of environments, and every one of them must confirm.
    """
    chains: dict[str, list[EndpointSettings]] = {}
    for endpoint in endpoints:
        if not fnmatchcase(agent_id, endpoint.agents):
            continue
        if environment is None:
            chains.setdefault(endpoint.environments, []).append(endpoint)
        elif fnmatchcase(environment, endpoint.environments):
            chains.setdefault("", []).append(endpoint)
    return list(chains.values())
