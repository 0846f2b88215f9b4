"""The agents that a site declares: whose they are, what for, how risky, and what they may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from monitor.people.trail import entry
from monitor.store.state import DeclaredAgent, State, now

RISK_TIERS = ("low", "medium", "high")


class InventoryError(ValueError):
    """Something that cannot be declared; the message says why."""


class StaleDeclarationError(InventoryError):
    """Somebody else has declared the agent anew since it was read."""


@dataclass(frozen=True)
class Declaration:
    """What is said of an agent. Empty ``tools`` or ``models`` say nothing of them."""

    owner: str
    purpose: str = ""
    risk_tier: str = "medium"
    tools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class Inventory:
    """Declarations in the state database."""

    def __init__(self, state: State) -> None:
        self._state = state

    def declare(
        self,
        tenant: str,
        agent_id: str,
        said: Declaration,
        by: str,
        reason: str = "",
        seen: int | None = None,
    ) -> None:
        """Declare an agent, in place of what was said before. Raises InventoryError.

        ``seen`` is the ``declared_at`` of what the caller had before them, 0 where there was nothing.
        """
        if not agent_id or len(agent_id) > 512:
            raise InventoryError("an agent's id has 1 to 512 characters")
        if not said.owner.strip():
            raise InventoryError("name an owner: somebody who answers for the agent")
        if said.risk_tier not in RISK_TIERS:
            raise InventoryError(f"{said.risk_tier!r} is no risk tier; use one of {', '.join(RISK_TIERS)}")
        with self._state.write() as session:
            known = session.get(DeclaredAgent, (tenant, agent_id))
            if seen is not None and seen != (known.declared_at if known is not None else 0):
                raise StaleDeclarationError(
                    "somebody else has declared it meanwhile; look again, then decide"
                )
            if known is None:
                known = DeclaredAgent(tenant=tenant, agent_id=agent_id)
                session.add(known)
            known.owner, known.purpose, known.risk_tier = said.owner.strip(), said.purpose, said.risk_tier
            known.tools, known.models = list(said.tools), list(said.models)
            known.declared_by, known.declared_at = by, now()
            detail = {"owner": said.owner, "risk_tier": said.risk_tier}
            subject = f"agent:{tenant}/{agent_id}"
            session.add(entry(by, "agent.declare", subject, reason=reason, detail=detail))

    def withdraw(self, tenant: str, agent_id: str, by: str, reason: str = "") -> None:
        """The agent is no longer expected. Raises InventoryError where it was not declared."""
        with self._state.write() as session:
            known = session.get(DeclaredAgent, (tenant, agent_id))
            if known is None:
                raise InventoryError(f"no agent {agent_id} of tenant {tenant} is declared")
            session.delete(known)
            session.add(entry(by, "agent.withdraw", f"agent:{tenant}/{agent_id}", reason=reason))

    def find(self, tenant: str, agent_id: str) -> DeclaredAgent | None:
        """What was declared of an agent."""
        with self._state.read() as session:
            return session.get(DeclaredAgent, (tenant, agent_id))

    def all(self, tenant: str | None = None) -> list[DeclaredAgent]:
        """Every declaration, of one tenant or of all."""
        query = select(DeclaredAgent).order_by(DeclaredAgent.tenant, DeclaredAgent.agent_id)
        if tenant is not None:
            query = query.where(DeclaredAgent.tenant == tenant)
        with self._state.read() as session:
            return list(session.scalars(query))


def plain(one: DeclaredAgent) -> dict[str, Any]:
    """A declaration as plain data."""
    return {column.key: getattr(one, column.key) for column in DeclaredAgent.__table__.columns}
