"""Who may open an association."""

from __future__ import annotations

import threading

import pytest

from dicom_listener.callers import Callers, Verdict
from dicom_listener.host_names import Address, HostNames, parse_address
from dicom_listener.settings import Caller

CT1 = Caller("CT1", "10.0.0.5")
NET = Caller("MR1", "192.168.7.0/24")
NAMED = Caller("PACS", "pacs.example")
SIX = Caller("CT6", "fd00::/8")
BOUND = Caller("US1", "10.0.0.7", certificate_sha256="ab" * 32)
NOWHERE = Caller("LOST", "lost.example")


def look_up(name: str) -> frozenset[Address]:
    if name != "pacs.example":
        raise OSError("no such name")
    address = parse_address("10.0.0.30")
    assert address is not None
    return frozenset({address})


@pytest.mark.parametrize(
    ("callers", "ae_title", "address", "verdict"),
    [
        ((), "ANY", "127.0.0.1", Verdict.LISTED),
        ((), "ANY", "::1", Verdict.LISTED),
        ((), "ANY", "::ffff:127.0.0.1", Verdict.LISTED),
        ((), "ANY", "10.0.0.5", Verdict.NOT_HERE),
        ((CT1,), "CT1", "10.0.0.5", Verdict.LISTED),
        ((CT1,), "CT1", "::ffff:10.0.0.5", Verdict.LISTED),
        ((CT1,), "CT2", "10.0.0.5", Verdict.TITLE),
        ((CT1,), "CT1", "10.0.0.6", Verdict.TITLE),
        ((CT1,), "CT1", "127.0.0.1", Verdict.TITLE),
        ((CT1, NET), "MR1", "192.168.7.200", Verdict.LISTED),
        ((CT1, NET), "MR1", "192.168.8.1", Verdict.TITLE),
        ((NAMED,), "PACS", "10.0.0.30", Verdict.LISTED),
        ((NAMED,), "PACS", "10.0.0.31", Verdict.TITLE),
        ((SIX,), "CT6", "fd12::9%eth0", Verdict.LISTED),
        ((CT1,), "CT1", "nonsense", Verdict.NO_ADDRESS),
        ((NOWHERE,), "LOST", "10.0.0.5", Verdict.UNKNOWN),
        ((NOWHERE,), "OTHER", "10.0.0.5", Verdict.TITLE),
        ((BOUND,), "US1", "10.0.0.7", Verdict.CERTIFICATE),
    ],
)
def test_caller_is_known_by_title_and_host(
    callers: tuple[Caller, ...], ae_title: str, address: str, verdict: Verdict
) -> None:
    """Title and host must both fit one entry; with no entries, only this machine may."""
    assert Callers(callers, HostNames(look_up)).of_association(ae_title, address) is verdict


def test_caller_bound_to_a_certificate_must_show_it() -> None:
    """The very certificate that is listed lets the caller in, another one does not."""
    callers = Callers([BOUND])
    assert callers.of_association("US1", "10.0.0.7", "ab" * 32) is Verdict.LISTED
    assert callers.of_association("US1", "10.0.0.7", "cd" * 32) is Verdict.CERTIFICATE


@pytest.mark.parametrize(
    ("callers", "address", "verdict"),
    [
        ((), "127.0.0.9", Verdict.LISTED),
        ((), "10.0.0.5", Verdict.NOT_HERE),
        ((CT1, NET), "10.0.0.5", Verdict.LISTED),
        ((CT1, NET), "192.168.7.9", Verdict.LISTED),
        ((CT1, NET), "10.0.0.6", Verdict.ADDRESS),
        ((CT1,), "nonsense", Verdict.NO_ADDRESS),
    ],
)
def test_an_address_that_is_nobodys_is_known_at_connect(
    callers: tuple[Caller, ...], address: str, verdict: Verdict
) -> None:
    """Before a word is heard, addresses that no entry has are told from those that one has."""
    assert Callers(callers).of_address(address) is verdict


def test_a_name_is_heard_until_it_is_known_then_strangers_are_not() -> None:
    """While a host name is being looked up nobody is shut out at connect; afterwards those elsewhere are."""
    may_answer = threading.Event()

    def slow(name: str) -> frozenset[Address]:
        may_answer.wait(10)
        return look_up(name)

    callers = Callers([NAMED], HostNames(slow))
    assert callers.of_address("10.0.0.99") is Verdict.LISTED
    may_answer.set()
    assert callers.of_association("PACS", "10.0.0.99") is Verdict.TITLE
    assert callers.of_address("10.0.0.99") is Verdict.ADDRESS
    assert callers.of_address("10.0.0.30") is Verdict.LISTED
