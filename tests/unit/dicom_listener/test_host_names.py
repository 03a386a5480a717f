"""Host names: looked up in the background, kept for a while, and never waited for for long."""

from __future__ import annotations

import threading
import time

import pytest

from dicom_listener.host_names import FRESH_S, KEPT_S, SETTLED_S, Address, HostNames, look_up, parse_address


def address(text: str) -> Address:
    parsed = parse_address(text)
    assert parsed is not None
    return parsed


OLD, NEW = address("10.0.0.1"), address("10.0.0.2")


class NameServer:
    """Answers with what it is told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.addresses: frozenset[Address] | None = frozenset({OLD})
        self.asked = 0
        self.now = 0.0
        self.open = threading.Event()
        self.open.set()

    def look_up(self, name: str) -> frozenset[Address]:
        """As `host_names.look_up`."""
        self.open.wait(10)
        self.asked += 1
        if self.addresses is None:
            raise OSError("away")
        return self.addresses


@pytest.fixture
def server() -> NameServer:
    return NameServer()


@pytest.fixture
def names(server: NameServer) -> HostNames:
    return HostNames(server.look_up, lambda: server.now)


def test_an_answer_is_kept(server: NameServer, names: HostNames) -> None:
    """A name is asked for once while its answer is fresh, and again afterwards."""
    for _ in range(5):
        assert OLD in names.has("ct", OLD, 5).addresses
    assert server.asked == 1
    server.now = FRESH_S + 1
    names.known("ct", OLD)
    assert names.has("ct", NEW, 5).addresses == {OLD}
    assert server.asked == 2


def test_a_host_that_moved_is_found_soon(server: NameServer, names: HostNames) -> None:
    """An address that is not among the known ones has the name asked for again after seconds, not a minute."""
    names.has("ct", OLD, 5)
    server.addresses = frozenset({NEW})
    assert NEW not in names.has("ct", NEW, 5).addresses
    server.now = SETTLED_S + 1
    assert NEW in names.has("ct", NEW, 5).addresses
    assert server.asked == 2


def test_a_name_server_that_is_away_locks_nobody_out(server: NameServer, names: HostNames) -> None:
    """The last answer holds for an hour while there is no new one, and then no longer."""
    names.has("ct", OLD, 5)
    server.addresses = None
    server.now = KEPT_S - 1
    assert OLD in names.has("ct", OLD, 5).addresses
    server.now = KEPT_S + 10
    known = names.has("ct", OLD, 5)
    assert not known.addresses
    assert not known.answered


def test_a_slow_name_server_holds_nobody_up(server: NameServer, names: HostNames) -> None:
    """Asking without waiting returns at once, waiting ends in time, and a hundred askers cause one question."""
    server.open.clear()
    began = time.monotonic()
    for _ in range(100):
        assert not names.known("ct", OLD).settled
    assert not names.has("ct", OLD, 0.05).answered
    assert time.monotonic() - began < 8
    server.open.set()
    assert OLD in names.has("ct", OLD, 5).addresses
    assert server.asked == 1


def test_names_that_cannot_be_are_no_fault() -> None:
    """A name that no name server can hold is one without an address."""
    for name in ("a" * 300, "no.such.host.invalid", ".."):
        assert not HostNames().has(name, OLD, 10).answered


def test_the_operating_system_is_asked() -> None:
    """This machine's own name is found."""
    assert address("127.0.0.1") in look_up("localhost")
