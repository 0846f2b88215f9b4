"""Where an order may go. The address that was checked is the address that is called."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(Exception):  # noqa: N818
    """The endpoint's address is not one to call; the message names the remedy."""


async def checked_addresses(url: httpx.URL, allow_private: bool) -> list[Address]:
    """The addresses of ``url``, all of which may be called.

    Calling one of them, instead of the name again, leaves no room for a name that changes
    its address between the check and the call (DNS rebinding). Raises AddressRefused, and
    OSError where the name is not known.
    """
    if url.scheme != "https" and not (allow_private and url.scheme == "http"):
        raise AddressRefused("the address is not https; http needs allow_private = true")
    loop = asyncio.get_running_loop()
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise AddressRefused("the host name is not valid") from None
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
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
