"""The gate: who may come in, and how many."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_listener.admission import CONNECTIONS_PER_ASSOCIATION, Admission
from dicom_listener.callers import Verdict
from dicom_listener.gate import Admitted, Gate, Rejection
from dicom_listener.host_names import Address, HostNames
from dicom_listener.settings import Caller, ListenerSettings, TlsSettings
from dicom_listener.shared_counts import SharedCounts
from fhir_records.errors import SettingsError

HERE = "127.0.0.1"
CT1 = Caller("CT1", "10.0.0.5")
NET = Caller("MR1", "192.168.7.0/24")
SETTINGS = ListenerSettings(callers=(CT1, NET), max_associations=5, max_associations_per_caller=3)


def rejected(answer: Admitted | Rejection) -> tuple[int, int, int]:
    assert isinstance(answer, Rejection), answer
    assert answer.words
    return answer.result, answer.source, answer.reason


def test_by_default_this_machine_alone_may_come_in() -> None:
    """With nobody listed a connection from here goes on, whatever its title, and one from elsewhere is closed."""
    gate: Gate = Admission(ListenerSettings())
    assert gate.connected(HERE) == ""
    assert isinstance(gate.requested("ANY", "WETREAD", HERE), Admitted)
    assert gate.connected("10.0.0.5") == Verdict.NOT_HERE
    assert rejected(gate.requested("ANY", "WETREAD", "10.0.0.5")) == (1, 1, 3)


@pytest.mark.parametrize(
    ("calling", "called", "address", "answer"),
    [
        ("CT1", "WETREAD", "10.0.0.5", None),
        ("CT1 ", " WETREAD  ", "10.0.0.5", None),
        ("CT1", "wetread", "10.0.0.5", (1, 1, 7)),
        ("CT1", "", "10.0.0.5", (1, 1, 7)),
        ("CT2", "WETREAD", "10.0.0.5", (1, 1, 3)),
        ("CT1", "WETREAD", "10.0.0.6", (1, 1, 3)),
        ("MR1", "WETREAD", "192.168.7.200", None),
    ],
)
def test_titles_and_addresses_are_checked(
    calling: str, called: str, address: str, answer: tuple[int, int, int] | None
) -> None:
    """An association that is for another AE, or from nobody who is listed, is rejected as PS3.8 section 9.3.4 says."""
    found = Admission(SETTINGS).requested(calling, called, address)
    if answer is None:
        assert isinstance(found, Admitted)
    else:
        assert rejected(found) == answer


def test_a_caller_whose_name_cannot_be_looked_up_may_try_again() -> None:
    """While the name server is away its association is rejected for now, not for ever."""

    def away(name: str) -> frozenset[Address]:
        raise OSError("away")

    gate = Admission(replace(SETTINGS, callers=(Caller("CT1", "ct1.example"),)), names=HostNames(away))
    assert gate.connected("10.0.0.5") == ""
    assert rejected(gate.requested("CT1", "WETREAD", "10.0.0.5")) == (2, 3, 1)
    assert rejected(gate.requested("CT9", "WETREAD", "10.0.0.5")) == (1, 1, 3)


def test_a_caller_bound_to_a_certificate_does_not_come_in_without() -> None:
    """Over a connection without TLS the right title and address are not enough."""
    gate = Admission(replace(SETTINGS, callers=(replace(CT1, certificate_sha256="ab" * 32),)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert rejected(gate.requested("CT1", "WETREAD", "10.0.0.5", ours)) == (1, 1, 3)


def test_one_address_holds_no_more_places_than_it_may() -> None:
    """The fourth association of one address is rejected for now, another one has room; a place given back is free."""
    gate = Admission(SETTINGS)
    held = [gate.requested("CT1", "WETREAD", "10.0.0.5") for _ in range(3)]
    assert rejected(gate.requested("CT1", "WETREAD", "10.0.0.5")) == (2, 3, 2)
    assert isinstance(gate.requested("MR1", "WETREAD", "192.168.7.1"), Admitted)
    first = held[0]
    assert isinstance(first, Admitted)
    gate.left(first)
    assert isinstance(gate.requested("CT1", "WETREAD", "10.0.0.5"), Admitted)


def test_places_are_counted_over_all_processes() -> None:
    """Two gates that count together let in as many as one."""
    counts = SharedCounts(2, SETTINGS.max_associations)
    gates = [Admission(SETTINGS, counts.of(number)) for number in range(2)]
    answers = [gates[n % 2].requested("MR1", "WETREAD", f"192.168.7.{n}") for n in range(8)]
    assert [isinstance(answer, Admitted) for answer in answers] == [True] * 5 + [False] * 3
    assert rejected(answers[-1]) == (2, 3, 2)


def test_rejections_hold_no_place() -> None:
    """A thousand rejections later all places are still to be had."""
    gate = Admission(SETTINGS)
    for _ in range(1000):
        gate.requested("CT1", "OTHER", "10.0.0.5")
        gate.requested("CT9", "WETREAD", "10.0.0.5")
    for _ in range(3):
        assert isinstance(gate.requested("CT1", "WETREAD", "10.0.0.5"), Admitted)
    for _ in range(1000):
        assert rejected(gate.requested("CT1", "WETREAD", "10.0.0.5")) == (2, 3, 2)
    assert isinstance(gate.requested("MR1", "WETREAD", "192.168.7.1"), Admitted)


def test_too_many_connections_a_minute_are_closed() -> None:
    """Beyond its number a minute an address is not heard; another one is."""
    gate = Admission(replace(SETTINGS, max_connections_per_minute=20))
    for _ in range(20):
        assert gate.connected("10.0.0.5") == ""
        gate.disconnected("10.0.0.5")
    assert "20 connections a minute" in gate.connected("10.0.0.5")
    assert gate.connected("192.168.7.1") == ""


def test_silent_connections_do_not_pile_up() -> None:
    """Connections that ask for nothing are counted too: of one address, and in all; when they end there is room."""
    gate = Admission(SETTINGS)
    of_one = SETTINGS.max_associations_per_caller * CONNECTIONS_PER_ASSOCIATION
    for _ in range(of_one):
        assert gate.connected("10.0.0.5") == ""
    assert "one address" in gate.connected("10.0.0.5")
    of_all = SETTINGS.max_associations * CONNECTIONS_PER_ASSOCIATION
    for number in range(of_all - of_one):
        assert gate.connected(f"192.168.7.{number}") == ""
    assert gate.connected("192.168.7.99") == "too many connections are open"
    for _ in range(of_one):
        gate.disconnected("10.0.0.5")
    assert gate.connected("192.168.7.99") == ""


def test_strangers_leave_no_trace() -> None:
    """Addresses that nobody has are turned away before they are counted."""
    gate = Admission(SETTINGS)
    for number in range(1000):
        assert gate.connected(f"172.16.{number >> 8}.{number & 255}") == Verdict.ADDRESS
    assert gate.connected("10.0.0.5") == ""


def test_without_tls_files_nothing_starts(tmp_path: Path) -> None:
    """A certificate that is not there is named when the gate is made, not when the first caller comes."""
    tls = TlsSettings(certificate=tmp_path / "none.pem", key=tmp_path / "none.key")
    with pytest.raises(SettingsError, match=r"none\.pem"):
        Admission(replace(SETTINGS, tls=tls))


def test_a_plain_connection_stays_what_it_is_and_tls_needs_settings() -> None:
    """On the plain port nothing is put over the connection; TLS without certificates closes it."""
    gate = Admission(SETTINGS)
    ours, theirs = socket.socketpair()
    with theirs:
        assert gate.secured(ours, tls=False) is ours
        with pytest.raises(ConnectionError, match="not configured"):
            gate.secured(ours, tls=True)
        assert theirs.recv(1) == b""


def test_a_destination_may_report_and_nothing_else() -> None:
    """Where it is no caller, it is let in for its reports; a caller that is a destination, too, for everything."""
    settings = ListenerSettings(
        callers=(Caller("CT1", "10.0.0.5"),), reporters=(Caller("PACS", "10.0.0.9"), Caller("CT1", "10.0.0.5"))
    )
    gate = Admission(settings)
    assert gate.connected("10.0.0.9") == ""
    pacs, scanner = gate.requested("PACS", "WETREAD", "10.0.0.9"), gate.requested("CT1", "WETREAD", "10.0.0.5")
    assert isinstance(pacs, Admitted) and pacs.reports_only
    assert isinstance(scanner, Admitted) and not scanner.reports_only
    assert isinstance(gate.requested("PACS", "WETREAD", "10.0.0.5"), Rejection)
    assert gate.connected("10.0.0.7") != ""


def test_without_callers_this_machine_alone_may_send_whoever_may_report() -> None:
    """Destinations do not become a list of callers."""
    gate = Admission(ListenerSettings(reporters=(Caller("PACS", "10.0.0.9"),)))
    here = gate.requested("ANY", "WETREAD", "127.0.0.1")
    assert isinstance(here, Admitted) and not here.reports_only
    assert isinstance(gate.requested("ANY", "WETREAD", "10.0.0.9"), Rejection)
