"""The processes of the simulated agents: start, listen, end, kill."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from monitor.simulation.plan import Member
from monitor.simulation.sessions import Session

AGENT = Path(__file__).with_name("agent.py")

REST_SECONDS = (30.0, 60.0)
"""After its first round an agent rests about this long between sessions, each agent at its own pace."""

END_SECONDS = 5.0

Listener = Callable[[Member, dict[str, Any]], None]


class AgentProcess:
    """One agent as an operating-system process. ``listen`` hears what it says on stdout."""

    def __init__(self, member: Member, url: str, key: str | None, run: str, listen: Listener) -> None:
        self.member = member
        self.run = run
        self._script = {
            "url": url,
            "key": key,
            "run": run,
            "rest": Random(member.agent_id).uniform(*REST_SECONDS),  # noqa: S311 - a simulation
        }
        self._listen = listen
        self._done: set[str] = set()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def session(self, session_id: str) -> Session | None:
        """The planned session that runs under this id, if it is one of this agent."""
        planned = {f"{session.session_id}-{self.run}": session for session in self.member.sessions}
        return planned.get(session_id)

    def finished(self, session_id: str) -> bool:
        """Whether the session has come to its own end."""
        return session_id in self._done

    def start(self, without: frozenset[str] = frozenset()) -> bool:
        """Start it on the sessions that are left, ``without`` some; False if none is left."""
        left = [
            session
            for session in self.member.sessions
            if f"{session.session_id}-{self.run}" not in self._done | without
        ]
        if not left:
            return False
        script = {
            **self._script,
            "columns": self.member.agent.columns(),
            "sessions": [
                {
                    "id": session.session_id,
                    "pause": session.pause,
                    "story": session.story,
                    "repeat": session.repeats,
                    "steps": [asdict(step) for step in session.steps],
                }
                for session in left
            ],
        }
        # -I and -S: nothing but the standard library, so it starts in a twentieth of a second.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(AGENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(script) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        return True

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a killed process leaves half a line
            if said["kind"] == "done":
                self._done.add(said["session_id"])
            self._listen(self.member, said)

    def kill(self) -> int | None:
        """SIGKILL, and wait until the process is gone; its id, or None if none lived."""
        process, pid = self._process, self.pid
        if process is None or pid is None:
            return None
        process.kill()
        self._gone(process)
        return pid

    def end(self) -> None:
        """Ask it to end after what it is sending; kill it if it will not."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._gone(process)

    def _gone(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        if self._reader is not None:
            self._reader.join(END_SECONDS)
        if process.stdin is not None:
            process.stdin.close()
