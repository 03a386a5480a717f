"""Which of the listed callers a peer may be: by AE title, address, and certificate where one is asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import StrEnum

from dicom_listener.host_names import Address, HostNames, parse_address
from dicom_listener.settings import Caller

# An association waits so long, in all, for the names of callers to be looked up.
PATIENCE_S = 2.0


class Verdict(StrEnum):
    """Whether a peer is one of the callers, and why not."""

    LISTED = ""
    NO_ADDRESS = "the peer has no address"
    NOT_HERE = "no caller is listed, so that only this machine may send"
    ADDRESS = "the address is not that of a caller"
    TITLE = "no caller of this AE title is listed for this address"
    CERTIFICATE = "the certificate is not the one that the caller is listed with"
    UNKNOWN = "the host name of the caller cannot be looked up now"


class Callers:
    """The list of those who may send; with nobody on it, this machine alone may.

    Args:
        callers: the list.
        names: the addresses of host names on it.
    """

    def __init__(self, callers: Iterable[Caller], names: HostNames | None = None) -> None:
        self._names = names or HostNames()
        self._listed = [(caller, _network(caller.host)) for caller in callers]

    def of_address(self, address: str) -> Verdict:
        """Whether anybody at this address may send, without waiting: LISTED also where that is not known yet."""
        peer = parse_address(address)
        if peer is None:
            return Verdict.NO_ADDRESS
        if not self._listed:
            return Verdict.LISTED if peer.is_loopback else Verdict.NOT_HERE
        if any(network is not None and peer in network for _, network in self._listed):
            return Verdict.LISTED
        for caller, network in self._listed:
            if network is None:
                known = self._names.known(caller.host, peer)
                if peer in known.addresses or not known.settled:
                    return Verdict.LISTED
        return Verdict.ADDRESS

    def of_association(self, ae_title: str, address: str, certificate_sha256: str = "") -> Verdict:
        """Whether a node of this title, address and certificate ("": it showed none) may send.

        Waits for host names that are not known yet, up to `PATIENCE_S` each.
        """
        peer = parse_address(address)
        if peer is None:
            return Verdict.NO_ADDRESS
        if not self._listed:
            return Verdict.LISTED if peer.is_loopback else Verdict.NOT_HERE
        verdict = Verdict.TITLE
        for caller, network in self._listed:
            if caller.ae_title != ae_title:
                continue
            here = self._is_at(peer, caller.host) if network is None else peer in network
            if here is None:
                verdict = Verdict.UNKNOWN if verdict is Verdict.TITLE else verdict
            elif here and caller.certificate_sha256 in ("", certificate_sha256):
                return Verdict.LISTED
            elif here:
                verdict = Verdict.CERTIFICATE
        return verdict

    def _is_at(self, peer: Address, host: str) -> bool | None:
        """Whether ``peer`` is the host of this name; None where that cannot be known now."""
        known = self._names.has(host, peer, PATIENCE_S)
        if peer in known.addresses:
            return True
        return False if known.answered else None


def _network(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None
