"""The customer's site: it runs the agents, and its kill switch really stops them."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monitor.processes.common import Server, web_server
from monitor.simulation.endpoint import StopResult, endpoint_app
from monitor.simulation.fleet import AgentProcess
from monitor.simulation.plan import Member, Plan

ENFORCER = "process-supervisor"


@dataclass(frozen=True)
class Telling:
    """The event with which a story's misbehaviour began: when (microseconds, UTC) and where."""

    story: str
    agent_id: str
    session_id: str
    event_id: str
    at: int


class Site:
    """Agents as processes, and the endpoint that kill orders come to.

    ``open`` gives the endpoint's URL, before there is a daemon to send to; ``start``
    begins the fleet; ``close`` ends everything that is still alive.
    """

    def __init__(self, plan: Plan, secret: str, run: str) -> None:
        self.plan = plan
        self.run = run
        self.tellings: dict[str, Telling] = {}
        self.healthy_sessions = 0
        self.agents: dict[str, AgentProcess] = {}
        self._secret = secret
        self._lock = threading.Lock()
        self._stopping = asyncio.Lock()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> str:
        """Serve the kill-switch endpoint on a free port of this machine; its URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._server = web_server(endpoint_app(self._secret, self.stop), drain_seconds=2)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/kill"

    def start(self, edge_url: str, key: str | None = None) -> None:
        """Start every agent; they send to ``edge_url``, with ``key`` where given."""
        for member in self.plan.members:
            agent = AgentProcess(member, edge_url, key, self.run, self._heard)
            self.agents[member.agent_id] = agent
            agent.start()

    def _heard(self, member: Member, said: dict[str, Any]) -> None:
        with self._lock:
            if said["kind"] == "done" and said["story"] is None:
                self.healthy_sessions += 1
            elif said["kind"] == "telling":
                at = datetime.fromisoformat(said["at"])
                self.tellings[said["story"]] = Telling(
                    said["story"],
                    member.agent_id,
                    said["session_id"],
                    said["event_id"],
                    round(at.timestamp() * 1_000_000),
                )

    def alive(self) -> int:
        """How many agents run."""
        return sum(agent.pid is not None for agent in self.agents.values())

    async def stop(self, target: dict[str, Any]) -> StopResult:
        """Carry out a stop order; returns only when the process is gone."""
        agent = self.agents.get(str(target.get("agent_id")))
        if agent is None:
            return StopResult("failed", ENFORCER, "no such agent runs here")
        async with self._stopping:
            if target.get("scope") == "agent":
                return await asyncio.to_thread(self._stop_agent, agent)
            if target.get("scope") == "session":
                return await asyncio.to_thread(self._stop_session, agent, str(target.get("session_id")))
        return StopResult("failed", ENFORCER, "only a session or an agent can be stopped here")

    def _stop_agent(self, agent: AgentProcess) -> StopResult:
        pid = agent.kill()
        return StopResult("stopped", ENFORCER, f"killed process {pid}" if pid else "was not running")

    def _stop_session(self, agent: AgentProcess, session_id: str) -> StopResult:
        if agent.session(session_id) is None:
            return StopResult("failed", ENFORCER, "no such session runs here")
        if agent.finished(session_id):
            return StopResult("stopped", ENFORCER, "the session had ended")
        pid = agent.kill()
        if pid is None:
            return StopResult("stopped", ENFORCER, "was not running")
        again = agent.start(without=frozenset({session_id}))
        rest = "; the agent goes on without the session" if again else ""
        return StopResult("stopped", ENFORCER, f"killed process {pid}{rest}")

    def end_fleet(self) -> None:
        """End all agents; each finishes what it is sending."""
        enders = [threading.Thread(target=agent.end) for agent in self.agents.values()]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()

    def close(self) -> None:
        """End all agents and the endpoint."""
        self.end_fleet()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(5)
