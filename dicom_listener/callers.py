"""Who may open an association (PS3.8 section 9.3.4)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from dicom_listener.settings import Caller

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def may_call(callers: Iterable[Caller], ae_title: str, address: str) -> bool:
    """Whether a node of this AE title at this address may send. With no callers listed, this machine alone may."""
    peer = _address(address)
    if peer is None:
        return False
    listed = tuple(callers)
    if not listed:
        return peer.is_loopback
    return any(caller.ae_title == ae_title and _is_at(peer, caller.host) for caller in listed)


def _is_at(peer: Address, host: str) -> bool:
    try:
        return peer in ipaddress.ip_network(host, strict=False)
    except ValueError:
        return peer in _resolved(host)


def _resolved(host: str) -> set[Address]:
    """The addresses of a host name; none where it cannot be resolved now."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {address for entry in found if (address := _address(str(entry[4][0]))) is not None}


def _address(text: str) -> Address | None:
    """An address without its zone; an IPv4 address that came over an IPv6 socket as what it is."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
