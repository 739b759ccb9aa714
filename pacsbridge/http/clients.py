"""Where a request comes from, also behind the proxies that the configuration trusts."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import hdrs

from pacsbridge.accounts.values import Caller
from pacsbridge.http.middleware import REQUEST_ID
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from aiohttp import web

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network
    Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def caller_of(request: web.Request) -> Caller:
    """Tell who sent a request: their address, their program, the request's id."""
    trusted = request.app[SERVICES].config.server.trusted_proxies
    address = client_address(
        request.remote or "", request.headers.getall(hdrs.X_FORWARDED_FOR, []), networks(trusted)
    )
    return Caller(address, request.headers.get(hdrs.USER_AGENT, ""), request.get(REQUEST_ID, ""))


def client_address(remote: str, forwarded: list[str], trusted: tuple[Network, ...]) -> str:
    """Find the client's address: the last one in ``X-Forwarded-For`` that no trusted proxy has.

    Each proxy adds the address that it was called from. What stands before an address that isn't trusted was
    written by whoever sent the request.
    """
    address = remote
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    while hops and _is_trusted(address, trusted):
        hop = hops.pop()
        if _parsed(hop) is None:
            break
        address = hop
    parsed = _parsed(address)
    return str(parsed) if parsed else address


def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parsed(address: str) -> Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    # A socket that listens on both families sees IPv4 callers so.
    return getattr(parsed, "ipv4_mapped", None) or parsed


@lru_cache(maxsize=8)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Read CIDRs."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
