"""The call to a kill-switch endpoint: one signed HTTP request, one answer, within its time."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from monitor.response.addresses import Address, AddressRefused, Resolver, checked_addresses
from monitor.response.reply import Reply, Verdict, clean, read_reply
from monitor.settings import EndpointSettings

MAX_REPLY_BYTES = 64 << 10


@dataclass(frozen=True)
class Timing:
    """How long each part may take, in seconds (KILL-SWITCH, The call)."""

    connect: float = 2.0
    read: float = 10.0
    endpoint: float = 20.0
    attempts: int = 5
    chain: float = 60.0
    backoff: float = 0.5
    poll: float = 300.0
    poll_every: float = 1.0


class KillSwitch:
    """Speaks the contract to endpoints. Keeps no connection and no cookie between calls."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._resolver = Resolver()
        self._trust = httpx.create_ssl_context()

    def close(self) -> None:
        """Let go of the threads that resolve names."""
        self._resolver.close()

    async def order(self, endpoint: EndpointSettings, request_id: str, body: bytes, budget: float) -> Reply:
        """Send the frozen ``body`` once, under ``request_id`` as its key; ``budget`` in seconds."""
        return await self._call("POST", endpoint, httpx.URL(endpoint.url), request_id, body, budget)

    async def poll(self, endpoint: EndpointSettings, request_id: str, location: str, budget: float) -> Reply:
        """Ask again at ``location``, which must be on the endpoint's own origin."""
        home = httpx.URL(endpoint.url)
        try:
            url = home.join(location)
        except httpx.InvalidURL:
            return Reply(Verdict.UNCONFIRMED, "accepted, but the Location to ask at is not valid")
        if (url.scheme, url.host, url.port) != (home.scheme, home.host, home.port):
            return Reply(Verdict.UNCONFIRMED, "accepted, but the Location to ask at is on another host")
        return await self._call("GET", endpoint, url, request_id, b"", budget)

    async def _call(
        self,
        method: str,
        endpoint: EndpointSettings,
        url: httpx.URL,
        request_id: str,
        body: bytes,
        budget: float,
    ) -> Reply:
        try:
            async with asyncio.timeout(min(budget, self._timing.connect + self._timing.read)):
                async with asyncio.timeout(self._timing.connect):
                    addresses = await checked_addresses(url, endpoint.allow_private, self._resolver)
                headers = signed_headers(endpoint, request_id, body)
                return await self._first_reachable(method, url, addresses, headers, body, request_id)
        except AddressRefused as refusal:
            return Reply(Verdict.REFUSED, str(refusal))
        except TimeoutError:
            return Reply(Verdict.RETRY, "no whole answer in time")
        except (httpx.TransportError, OSError) as error:
            return Reply(Verdict.RETRY, f"{type(error).__name__}: {clean(str(error))}")

    async def _first_reachable(
        self,
        method: str,
        url: httpx.URL,
        addresses: list[Address],
        headers: dict[str, str],
        body: bytes,
        request_id: str,
    ) -> Reply:
        for address in addresses[:-1]:
            try:
                return await self._exchange(method, url, address, headers, body, request_id)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._exchange(method, url, addresses[-1], headers, body, request_id)

    async def _exchange(
        self,
        method: str,
        url: httpx.URL,
        address: Address,
        headers: dict[str, str],
        body: bytes,
        request_id: str,
    ) -> Reply:
        timeout = httpx.Timeout(self._timing.read, connect=self._timing.connect)
        async with (
            httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=timeout) as client,
            client.stream(
                method,
                url.copy_with(host=str(address)),
                headers={**headers, "host": url.netloc.decode("ascii")},
                content=body,
                follow_redirects=False,
                # The certificate is checked against the name, although the address is called.
                extensions={"sni_hostname": url.host},
            ) as response,
        ):
            return read_reply(response.status_code, response.headers, await _capped(response), request_id)


async def _capped(response: httpx.Response) -> bytes | None:
    """The body as sent, or None where it is longer than ``MAX_REPLY_BYTES``."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            return None
    return bytes(body)


def signed_headers(endpoint: EndpointSettings, request_id: str, body: bytes) -> dict[str, str]:
    """Headers of one attempt: a fresh time, and a signature by every secret, newest first.

    Standard Webhooks, "Signature scheme": several signatures stand in one header, with
    spaces between, so that sender and receiver can change a secret one after the other.
    """
    at = datetime.now(UTC)
    signatures = [
        Webhook(secret.get_secret_value()).sign(request_id, at, body.decode()) for secret in endpoint.secrets
    ]
    headers = {
        "content-type": "application/json",
        "accept": "application/json, application/problem+json",
        "accept-encoding": "identity",
        "user-agent": "watchkeeper",
        "idempotency-key": f'"{request_id}"',
        "webhook-id": request_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
        "traceparent": f"00-{uuid.UUID(request_id).hex}-{secrets.token_hex(8)}-01",
    }
    if endpoint.token is not None:
        headers["authorization"] = f"Bearer {endpoint.token.get_secret_value()}"
    return headers
