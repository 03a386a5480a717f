"""What the worklist says of a study follows from its images and reads."""

from __future__ import annotations

import datetime as dt

import pytest

from fhir_records.model import ReadState, StudyState
from fhir_records.store.deliveries import LONGEST_WAIT, wait_after
from fhir_records.store.studies import derive_state


@pytest.mark.parametrize(
    ("reads", "state"),
    [
        ([], StudyState.NOT_ROUTED),
        ([ReadState.QUEUED], StudyState.QUEUED),
        ([ReadState.QUEUED, ReadState.READING], StudyState.READING),
        ([ReadState.READ, ReadState.FAILED], StudyState.FAILED),
        ([ReadState.READ, ReadState.REFUSED], StudyState.READ),
        ([ReadState.REFUSED], StudyState.REFUSED),
    ],
)
def test_a_routed_study_says_what_its_reads_say(reads: list[ReadState], state: StudyState) -> None:
    """Work under way comes first, then what needs a person, then answers."""
    assert derive_state(still_open=False, revision=2, routed_revision=2, reads=reads) is state


def test_new_images_make_a_study_arrive_again() -> None:
    """A study with images that no revision holds is arriving, whatever was read of it before."""
    assert derive_state(still_open=True, revision=1, routed_revision=1, reads=[ReadState.READ]) is StudyState.ARRIVING


def test_a_study_waits_until_it_is_routed() -> None:
    """A revision that routing has not decided on is queued, not "not routed"."""
    assert derive_state(still_open=False, revision=2, routed_revision=1, reads=[]) is StudyState.QUEUED


def test_deliveries_wait_longer_each_time_but_not_for_ever() -> None:
    """Waits double from 5 s and stay at a quarter of an hour, however often an attempt was in vain."""
    assert wait_after(1) == dt.timedelta(seconds=5)
    assert wait_after(3) == dt.timedelta(seconds=20)
    assert wait_after(10_000) == LONGEST_WAIT
