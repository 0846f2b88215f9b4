"""Drives orders to their end: sends, retries, polls, goes down the chain of endpoints.

An order is sent only after its row says so, and its bytes and key never change, so a
worker that takes over after a crash goes on where the last one stopped.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback

import structlog
from sqlalchemy import select

from monitor.response.endpoints import chains_for
from monitor.response.killswitch import KillSwitch, Timing
from monitor.response.orders import OrderDesk
from monitor.response.reply import Reply, Verdict
from monitor.response.states import IN_FLIGHT, OrderError
from monitor.settings import ContainmentSettings, EndpointSettings
from monitor.store.state import Order, State, now

MAX_AT_ONCE = 64
"""Orders driven at the same time; one slow endpoint must not hold back another order."""

MAX_READ = 1000
"""Orders looked at in one round."""

REST_SECONDS = 1.0
"""Pause for an order after a fault of our own, so that it cannot spin."""

Answer = tuple[EndpointSettings, Reply]

_WORST_FIRST = (Verdict.REFUSED, Verdict.FAILED, Verdict.UNCONFIRMED, Verdict.PARTIAL, Verdict.CONFIRMED)


class OrderWorker:
    """A thread with its own event loop. Exactly one may run for a state database.

    The loop's default executor reads and writes the state database and does nothing else;
    names are resolved elsewhere, so that a slow name holds back no row.
    """

    def __init__(
        self,
        state: State,
        orders: OrderDesk,
        settings: ContainmentSettings,
        timing: Timing | None = None,
        poll_seconds: float = 0.25,
    ) -> None:
        self._state = state
        self._orders = orders
        self._settings = settings
        self._timing = timing or Timing()
        self._poll_seconds = poll_seconds
        self._switch = KillSwitch(self._timing)
        self._log = structlog.get_logger()
        self._gone: set[str] = set()
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._rest_until: dict[str, float] = {}
        self._loop = asyncio.new_event_loop()
        self._woken = asyncio.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)

    def start(self) -> None:
        """Begin, with whatever a predecessor left in flight."""
        self._thread.start()

    def wake(self) -> None:
        """Look for orders now. Safe from any thread; nothing happens after ``stop``."""
        if not self._stopping:
            self._loop.call_soon_threadsafe(self._woken.set)

    def stop(self, seconds: float = 5.0) -> None:
        """End. An order in flight stays as it is and goes on with the next worker."""
        self.wake()
        self._stopping = True
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        finally:
            self._switch.close()

    async def _main(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                await self._pick_up()
            except Exception:
                self._log.exception("orders could not be read; trying again")
            try:
                await asyncio.wait_for(self._woken.wait(), self._poll_seconds)
            except TimeoutError:
                continue

    async def _pick_up(self) -> None:
        """Give every order in flight a task of its own; let held orders expire."""
        found = await asyncio.to_thread(self._waiting)
        moment = time.monotonic()
        for request_id in found:
            if len(self._driven) >= MAX_AT_ONCE:
                return
            if request_id not in self._driven and self._rest_until.get(request_id, 0.0) <= moment:
                self._rest_until.pop(request_id, None)
                self._driven[request_id] = asyncio.create_task(self._drive_safely(request_id))

    def _waiting(self) -> list[str]:
        with self._state.read() as session:
            ids = select(Order.request_id).order_by(Order.created_at).limit(MAX_READ)
            found = list(session.scalars(ids.where(Order.state.in_(IN_FLIGHT))))
            late = session.scalars(ids.where(Order.state == "held", Order.expires_at <= now())).first()
        if late is not None:
            self._expire_held()
        return found

    def _expire_held(self) -> None:
        query = select(Order).where(Order.state == "held", Order.expires_at <= now()).limit(MAX_READ)
        with self._state.write() as session:
            for order in session.scalars(query).all():
                self._orders.move(session, order, "expired", "worker", "nobody approved it in time")
        self._orders.wake()

    async def _drive_safely(self, request_id: str) -> None:
        try:
            await self._drive(request_id)
        except Exception as error:
            await self._take_fault(request_id, error)
        finally:
            del self._driven[request_id]

    async def _take_fault(self, request_id: str, error: Exception) -> None:
        """An order that somebody else ended is left alone; any other fault fails it, visibly."""
        try:
            order = await asyncio.to_thread(self._read, request_id)
            if isinstance(error, OrderError) and order.state not in IN_FLIGHT:
                self._log.info("order ended by somebody else", request_id=request_id, state=order.state)
                return
            self._log.error("order failed by a fault of our own", request_id=request_id, exc_info=error)
            detail = f"fault in Watchkeeper: {type(error).__name__}; see its log"
            await asyncio.to_thread(self._move, request_id, "failed", detail)
        except Exception:
            self._rest_until[request_id] = time.monotonic() + REST_SECONDS
            self._log.exception("order could not be marked failed; trying again", request_id=request_id)

    async def _drive(self, request_id: str) -> None:
        """Down each chain until an endpoint confirms; else the best answer there was."""
        order = await asyncio.to_thread(self._read, request_id)
        served = chains_for(self._settings.endpoints, order.agent_id or "", order.environment)
        chains = [[endpoint for endpoint in chain if endpoint.name not in self._gone] for chain in served]
        if not any(chains):
            await asyncio.to_thread(self._move, request_id, "failed", _no_endpoint(served))
            return
        if len(chains) == 1:
            # With one chain, what came before the endpoint that was asked last has had its say.
            names = [endpoint.name for endpoint in chains[0]]
            chains = [chains[0][names.index(order.endpoint) :]] if order.endpoint in names else chains
        answers = [await self._go_down(order, chain) for chain in chains]
        await asyncio.to_thread(self._finish, order, answers)

    async def _go_down(self, order: Order, chain: list[EndpointSettings]) -> list[Answer]:
        """What the endpoints of one chain answered, until one confirmed or time was over."""
        deadline = time.monotonic() + self._timing.chain
        answers: list[Answer] = []
        for endpoint in chain:
            answer = await self._ask(order, endpoint, deadline)
            if answer is None:
                break
            answers.append((endpoint, answer))
            if answer.verdict is Verdict.CONFIRMED:
                break
        return answers

    async def _ask(self, order: Order, endpoint: EndpointSettings, chain_deadline: float) -> Reply | None:
        """One endpoint's answer, with retries; None where the order's or the chain's time is over."""
        deadline = min(chain_deadline, time.monotonic() + self._timing.endpoint)
        if order.state == "accepted" and order.poll_url and order.endpoint == endpoint.name:
            return await self._follow(order, endpoint, Reply(Verdict.PENDING, "", location=order.poll_url))
        reply: Reply | None = None
        for attempt in range(self._timing.attempts):
            left = deadline - time.monotonic()
            if left <= 0 or now() >= order.expires_at:
                break
            order = await asyncio.to_thread(self._sending, order.request_id, endpoint.name)
            try:
                reply = await self._switch.order(endpoint, order.request_id, order.body, left)
            except Exception as error:
                return Reply(Verdict.FAILED, self._own_fault(endpoint, error))
            self._log.info(
                "order sent",
                request_id=order.request_id,
                endpoint=endpoint.name,
                attempt=attempt + 1,
                verdict=reply.verdict.value,
            )
            if reply.verdict is Verdict.GONE:
                self._gone.add(endpoint.name)
            if reply.verdict is Verdict.PENDING:
                return await self._follow(order, endpoint, reply)
            if reply.verdict is not Verdict.RETRY:
                return reply
            pause = max(self._timing.backoff * 2**attempt, reply.retry_after or 0.0)
            if attempt + 1 == self._timing.attempts or time.monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        return Reply(Verdict.FAILED, f"no answer that counts: {reply.detail}") if reply else None

    async def _follow(self, order: Order, endpoint: EndpointSettings, reply: Reply) -> Reply:
        """Poll an accepted order until it is final, each poll as patient as one attempt."""
        await asyncio.to_thread(self._accepted, order.request_id, endpoint.name, reply.location)
        location = reply.location or ""
        deadline = time.monotonic() + self._timing.poll
        while True:
            pause = max(self._timing.poll_every, reply.retry_after or 0.0)
            if time.monotonic() + pause >= deadline:
                detail = f"accepted, but no final state within {self._timing.poll:g} s"
                return Reply(Verdict.UNCONFIRMED, detail)
            await asyncio.sleep(pause)
            try:
                reply = await self._switch.poll(endpoint, order.request_id, location, self._timing.endpoint)
            except Exception as error:
                return Reply(Verdict.UNCONFIRMED, f"accepted, then {self._own_fault(endpoint, error)}")
            if reply.verdict in (Verdict.REFUSED, Verdict.GONE):
                return Reply(Verdict.UNCONFIRMED, f"accepted, then asked again: {reply.detail}")
            if reply.verdict not in (Verdict.PENDING, Verdict.RETRY):
                return reply

    def _own_fault(self, endpoint: EndpointSettings, error: Exception) -> str:
        """Log a fault of ours with one endpoint, and say it; an error's text may hold a secret."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        self._log.error(
            "endpoint could not be asked",
            endpoint=endpoint.name,
            fault=type(error).__name__,
            place=f"{place.filename}:{place.lineno}",
        )
        return (
            f"could not be asked ({type(error).__name__}); "
            f"correct url, secrets and token of {endpoint.name!r} in containment.endpoints"
        )

    def _read(self, request_id: str) -> Order:
        with self._state.read() as session:
            return session.get_one(Order, request_id)

    def _move(self, request_id: str, state: str, detail: str) -> None:
        with self._state.write() as session:
            order = session.get_one(Order, request_id)
            self._orders.move(session, order, state, "worker", detail, detail=detail)
        self._orders.wake()

    def _sending(self, request_id: str, endpoint: str) -> Order:
        """Say in the row that the order leaves, before it does. Raises IllegalMove if it may not."""
        with self._state.write() as session:
            order = session.get_one(Order, request_id)
            if order.state != "sent":
                self._orders.move(session, order, "sent", "worker", f"to {endpoint}")
            order.attempts += 1
            order.endpoint = endpoint
            order.sent_at = order.sent_at or now()
            order.poll_url = None
            return order

    def _accepted(self, request_id: str, endpoint: str, location: str | None) -> None:
        with self._state.write() as session:
            order = session.get_one(Order, request_id)
            if order.state != "accepted":
                times = {"accepted_at": order.accepted_at or now(), "poll_url": location}
                self._orders.move(session, order, "accepted", "worker", f"by {endpoint}", **times)

    def _finish(self, order: Order, chains: list[list[Answer]]) -> None:
        """Set the final state: the best answer's, or expired where there was none in time.

        Of several chains all must confirm; where some did not, the target is stopped in part.
        """
        best = [max(answers, key=lambda pair: _rank(pair[1])) for answers in chains if answers]
        if not best:
            attempts = self._read(order.request_id).attempts
            sent = f"sent {attempts} time(s), so it may have had its effect" if attempts else "never sent"
            self._move(order.request_id, "expired", f"its time passed without an answer; {sent}")
            return
        endpoint, reply = max(best, key=lambda pair: _rank(pair[1]))
        answered = [pair for answers in chains for pair in answers]
        detail = "; ".join(f"{asked.name}: {said.detail}" for asked, said in answered)
        verdict = reply.verdict
        if len(best) < len(chains):
            detail += "; other endpoints were not asked in time, or are gone"
        confirmed = sum(said.verdict is Verdict.CONFIRMED for _, said in best)
        if 0 < confirmed < len(chains):
            verdict = Verdict.PARTIAL
            detail += "; the environment is not known, so endpoints of every environment must confirm"
        at = now()
        with self._state.write() as session:
            row = session.get_one(Order, order.request_id)
            row.endpoint = endpoint.name
            row.enforcement = [point for _, said in best for point in said.enforcement]
            state = _STATE[verdict]
            if state != "failed":
                row.accepted_at = row.accepted_at or at
            if state == "unconfirmed" and row.state == "sent":
                self._orders.move(session, row, "accepted", "worker", f"by {endpoint.name}")
            times = {"confirmed_at": at} if state == "confirmed" else {}
            self._orders.move(session, row, state, "worker", detail, detail=detail, **times)
        self._orders.wake()


_STATE = {
    Verdict.CONFIRMED: "confirmed",
    Verdict.PARTIAL: "partial",
    Verdict.UNCONFIRMED: "unconfirmed",
    Verdict.FAILED: "failed",
    Verdict.REFUSED: "failed",
    Verdict.GONE: "failed",
}


def _rank(reply: Reply) -> int:
    return _WORST_FIRST.index(reply.verdict) if reply.verdict in _WORST_FIRST else 0


def _no_endpoint(served: list[list[EndpointSettings]]) -> str:
    if served:
        return "every endpoint for this agent answered 410 Gone; correct it and restart Watchkeeper"
    return "no endpoint serves this agent and environment; add one to containment.endpoints"
