"""The business roles of the simulated fleet, as data."""

from monitor.simulation.roles.business import BUSINESS
from monitor.simulation.roles.shape import Role, Tool
from monitor.simulation.roles.technical import TECHNICAL

ROLES: tuple[Role, ...] = (*BUSINESS, *TECHNICAL)

__all__ = ["ROLES", "Role", "Tool"]
