"""Counts that several processes keep together."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dicom_listener.shared_counts import Counts, SharedCounts, address_key

CT, MR = address_key("10.0.0.5"), address_key("10.0.0.6")


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 6000.0

    def __call__(self) -> float:
        """The seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(clock: Clock) -> tuple[Counts, Counts]:
    shared = SharedCounts(2, 5)
    return shared.of(0, clock=clock), shared.of(1, clock=clock)


def test_places_are_counted_over_all_processes(pair: tuple[Counts, Counts]) -> None:
    """What one process takes, the other sees, for the address and in all; what is given back is free again."""
    first, second = pair
    place, _ = first.take(CT)
    first.take(MR)
    _, taken = second.take(CT)
    assert (taken.of_address, taken.of_all) == (2, 3)
    first.give_back(place)
    assert (second.taken(CT).of_address, second.taken(CT).of_all) == (1, 2)


def test_a_process_without_a_place_says_so(pair: tuple[Counts, Counts]) -> None:
    """More than its part holds, a process does not take."""
    places = [pair[0].take(CT)[0] for _ in range(6)]
    assert sorted(places) == [-1, 0, 1, 2, 3, 4]
    assert pair[1].taken(CT).of_all == 5


def test_threads_get_places_of_their_own() -> None:
    """Fifty threads that take at once hold fifty different places."""
    counts = SharedCounts(1, 50).of(0)
    places: list[int] = []
    threads = [threading.Thread(target=lambda: places.append(counts.take(CT)[0])) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places) == list(range(50))


def test_connections_within_a_minute_slide(pair: tuple[Counts, Counts], clock: Clock) -> None:
    """Those of the minute before count in part, and after two minutes nothing is left."""
    first, second = pair
    for _ in range(30):
        first.opened(CT)
        second.opened(CT)
    assert first.opened(CT).lately == 61
    clock.now += 90  # half of the next minute
    assert second.opened(CT).lately == pytest.approx(1 + 61 / 2)
    clock.now += 120
    assert first.opened(CT).lately == 1
    assert first.opened(MR).lately == 1


def test_refused_connections_do_not_count_as_made(pair: tuple[Counts, Counts]) -> None:
    """Who is turned away for asking too often is not kept out by asking on."""
    for _ in range(10):
        pair[0].opened(CT)
        pair[0].closed(CT, refused=True)
    assert pair[0].opened(CT).lately == 1


def test_open_connections_are_counted(pair: tuple[Counts, Counts]) -> None:
    """Those that are open, of the address and in all, and none that is over."""
    first, second = pair
    first.opened(CT)
    second.opened(CT)
    there = second.opened(MR)
    assert (there.of_address, there.of_all) == (1, 3)
    first.closed(CT)
    there = first.opened(CT)
    assert (there.of_address, there.of_all) == (2, 3)
    for _ in range(10):
        first.closed(MR)
    assert first.opened(MR).of_all >= 1


def test_ten_thousand_strangers_do_not_displace_who_is_connected(pair: tuple[Counts, Counts]) -> None:
    """The memory is bounded, and an address with open connections keeps its count in it."""
    counts = pair[0]
    for _ in range(7):
        counts.opened(CT)
    for number in range(10_000):
        stranger = address_key(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}x")
        counts.opened(stranger)
        counts.closed(stranger)
    there = counts.opened(CT)
    assert (there.lately, there.of_address, there.of_all) == (8, 8, 8)


def test_more_addresses_than_fit_are_still_counted_in_all(pair: tuple[Counts, Counts]) -> None:
    """Where an address finds no entry its connections count in the total alone, and end without a fault."""
    counts = pair[0]
    keys = [address_key(f"host {number}") for number in range(5000)]
    for key in keys:
        there = counts.opened(key)
    assert there.of_all == 5000
    for key in keys:
        counts.closed(key)
    assert counts.opened(CT).of_all == 1


def test_addresses_that_are_one_caller() -> None:
    """IPv4 within IPv6 is the same address; IPv6 addresses of one /64 count together, others apart."""
    assert address_key("::ffff:10.0.0.5") == CT
    assert address_key("fd00:1:2:3::1") == address_key("fd00:1:2:3:ffff::9%eth0")
    assert address_key("fd00:1:2:3::1") != address_key("fd00:1:2:4::1")
    assert CT != MR
    assert address_key("") != 0


def test_a_number_that_no_process_has_is_refused() -> None:
    """Counting as a process that there is none of is an error that names those there are."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        SharedCounts(2, 5).of(2)


def test_a_killed_process_leaks_no_place() -> None:
    """Places and connections of a process ended by SIGKILL count until its part is cleared, and no longer."""
    shared = SharedCounts(2, 5)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        counts = shared.of(1)
        for _ in range(3):
            counts.take(CT)
            counts.opened(CT)
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    own = shared.of(0)
    assert own.taken(CT).of_all == 3
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert own.taken(CT).of_all == 3
    shared.clear(1)
    assert own.taken(CT).of_all == 0
    assert own.opened(CT).of_all == 1
    for end in (reader, writer):
        os.close(end)


def test_processes_never_pass_the_limit_together() -> None:
    """Four processes that take and give back as fast as they can never hold more than are allowed, counted by them."""
    limit, shared = 3, SharedCounts(5, 10)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            counts, most = shared.of(number), 0
            for _ in range(3000):
                place, taken = counts.take(CT)
                if taken.of_all <= limit:
                    most = max(most, 1)
                    # Whoever is let in stands in the second address's count while it stays.
                    inner, inside = counts.take(MR)
                    most = max(most, inside.of_address)
                    counts.give_back(inner)
                counts.give_back(place)
            os._exit(most)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert all(1 <= status <= limit for status in statuses), statuses
