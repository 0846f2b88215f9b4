"""Where an order may go. The address that was checked is the address that is called."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_LOOKUPS = 16
"""Names looked up at the same time."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(Exception):  # noqa: N818
    """The endpoint's address is not one to call; the message names the remedy."""


class Resolver:
    """Resolves names on threads of its own, so that a slow name holds back nothing else.

    A lookup cannot be ended. Whoever asks for a name that is being looked up already waits
    for that same lookup, so that one slow name never takes more than one thread.
    """

    def __init__(self, threads: int = MAX_LOOKUPS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="names")
        self._running: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a name. Raises OSError, or UnicodeError where it is no name."""
        asked = (host, port)
        if (lookup := self._running.get(asked)) is None:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)
            self._running[asked] = lookup
            lookup.add_done_callback(lambda done: self._forget(asked, done))
        return await asyncio.shield(lookup)

    def _forget(self, asked: tuple[str, int], done: asyncio.Future[list[Address]]) -> None:
        del self._running[asked]
        if not done.cancelled():
            done.exception()  # looked at here, since whoever asked may have left

    def close(self) -> None:
        """Begin no further lookup; one that runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]


async def checked_addresses(url: httpx.URL, allow_private: bool, resolver: Resolver) -> list[Address]:
    """The addresses of ``url``, all of which may be called.

    Calling one of them, instead of the name again, leaves no room for a name that changes
    its address between the check and the call (DNS rebinding). Raises AddressRefused, and
    OSError where the name is not known.
    """
    if url.scheme != "https" and not (allow_private and url.scheme == "http"):
        raise AddressRefused("the address is not https; http needs allow_private = true")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        addresses = await resolver.addresses(url.host, port)
    except UnicodeError:
        raise AddressRefused("the host name is not valid") from None
    for address in addresses:
        _check(address, allow_private)
    return list(dict.fromkeys(addresses))


def _check(address: Address, allow_private: bool) -> None:
    inner = _carried(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        raise AddressRefused(f"{address} is a link-local, metadata or multicast address; it is never called")
    if not (inner.is_global or allow_private):
        raise AddressRefused(f"{address} is a private address; set allow_private = true if it is meant")


def _carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
