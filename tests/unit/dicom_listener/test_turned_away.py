"""Rejections are told one by one until they are a flood."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from dicom_listener.handover import Note, Quarantined, Rejected
from dicom_listener.turned_away import KINDS, SINGLY, Tally

AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


class Told:
    """A handover that remembers."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.came = threading.Event()

    def tell(self, note: Note) -> None:
        """Keep a note."""
        self.notes.append(note)
        if isinstance(note, Rejected) and "times" in note.reason:
            self.came.set()


@pytest.fixture
def told() -> Told:
    return Told()


def rejected(address: str = "10.0.0.9", reason: str = "not listed") -> Rejected:
    return Rejected(caller="X", called="WETREAD", address=address, reason=reason, at=AT)


def test_a_few_are_told_as_they_are(told: Told) -> None:
    """Single rejections, and every other note, go through at once and unchanged."""
    tally = Tally(told)
    notes: list[Note] = [rejected(), rejected("10.0.0.8"), Quarantined("key", 3, "broken", "CT1", AT)]
    for note in notes:
        tally.tell(note)
    tally.flush()
    assert told.notes == notes


def test_a_flood_is_told_by_its_number(told: Told) -> None:
    """Of ten thousand rejections for one reason the first few are told singly and the rest as one, losing no count."""
    tally = Tally(told)
    for _ in range(10_000):
        tally.tell(rejected())
    assert len(told.notes) == SINGLY
    tally.flush()
    assert len(told.notes) == SINGLY + 1
    last = told.notes[-1]
    assert isinstance(last, Rejected)
    assert last.reason == f"not listed ({10_000 - SINGLY} times)"


def test_reasons_are_counted_apart(told: Told) -> None:
    """A flood for one reason hides no rejection for another one, nor of another address."""
    tally = Tally(told)
    for _ in range(100):
        tally.tell(rejected())
    others: list[Note] = [rejected(reason="title"), rejected("10.0.0.7")]
    for note in others:
        tally.tell(note)
    assert told.notes[SINGLY:] == others


def test_what_was_counted_is_told_by_itself_when_its_time_has_come(told: Told) -> None:
    """Nobody needs to come again for a flood's number to be told."""
    tally = Tally(told, window_s=0.05)
    for _ in range(SINGLY + 5):
        tally.tell(rejected())
    assert told.came.wait(60)


def test_a_flood_from_everywhere_is_bounded(told: Told) -> None:
    """Twenty thousand addresses neither fill the memory nor the trail."""
    tally = Tally(told)
    for number in range(20_000):
        tally.tell(rejected(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
    tally.flush()
    assert len(told.notes) <= KINDS + SINGLY + 1
