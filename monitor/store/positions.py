"""How far each process has read the spool, on disk."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from monitor.sources.spool import Position
from monitor.store.state import ReadingPosition, State


class Positions:
    """Reading positions by name, in the state database."""

    def __init__(self, state: State) -> None:
        self.state = state

    def load(self, name: str) -> Position:
        """Return where ``name`` goes on; the very beginning where it has never read."""
        with self.state.read() as session:
            row = session.get(ReadingPosition, name)
            return Position(row.segment, row.offset) if row else Position()

    def save(self, name: str, position: Position, session: Session | None = None) -> None:
        """Remember a position; with ``session``, as part of that write transaction."""
        if session is None:
            with self.state.write() as own:
                self.save(name, position, own)
            return
        session.merge(ReadingPosition(name=name, segment=position.segment, offset=position.offset))

    def furthest(self) -> Position:
        """The largest of all positions; the very beginning where there is none."""
        with self.state.read() as session:
            rows = session.scalars(select(ReadingPosition))
            return max((Position(row.segment, row.offset) for row in rows), default=Position())

    def oldest(self, *required: str) -> Position | None:
        """Return the least of all positions; the spool may drop what lies before it.

        None, so that nothing is dropped, while any of ``required`` has no position yet
        or nobody has.
        """
        with self.state.read() as session:
            rows = {
                row.name: Position(row.segment, row.offset)
                for row in session.scalars(select(ReadingPosition))
            }
        if not rows or not rows.keys() >= set(required):
            return None
        return min(rows.values())
