"""Identifiers: the same from the same parts, and check digits that find slips of the pen."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from fhir_records import identities

NAMESPACE = uuid.UUID("11111111-2222-4333-8444-555555555555")


def test_the_check_digit_is_that_of_the_standard() -> None:
    """ISO 7064 gives 0794 with the check digit 5 as its example of MOD 11,10."""
    assert identities.check_digit("0794") == "5"


@given(st.text("0123456789", min_size=12, max_size=12), st.integers(0, 12), st.integers(1, 9))
def test_one_wrong_digit_is_found(digits: str, place: int, change: int) -> None:
    """A Patient UID with any one digit changed is not taken for one."""
    whole = digits + identities.check_digit(digits)
    assert identities.is_patient_uid(whole)
    wrong = str((int(whole[place]) + change) % 10)
    assert not identities.is_patient_uid(whole[:place] + wrong + whole[place + 1 :])


def test_new_patient_uids_are_valid_and_differ() -> None:
    """Each new Patient UID has 13 digits with the right check digit, and none comes twice."""
    made = {identities.new_patient_uid() for _ in range(1000)}
    assert len(made) == 1000
    assert all(identities.is_patient_uid(uid) for uid in made)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_a_uid_is_the_same_for_the_same_parts_and_fits_dicom(parts: list[str]) -> None:
    """UIDs under 2.25 have at most 64 characters, depend on every part, and on the installation."""
    uid = identities.name_uid(NAMESPACE, *parts)
    assert uid == identities.name_uid(NAMESPACE, *parts)
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert uid != identities.name_uid(NAMESPACE, *parts, "more")
    assert uid != identities.name_uid(uuid.UUID(int=7), *parts)


def test_parts_do_not_run_together() -> None:
    """The parts ab and c give another UID than a and bc."""
    assert identities.name_uid(NAMESPACE, "ab", "c") != identities.name_uid(NAMESPACE, "a", "bc")


def test_a_log_id_does_not_show_what_it_stands_for() -> None:
    """What is logged of a UID is short, stable, and does not contain it."""
    uid = "1.2.840.113619.2.1"
    assert identities.log_id(uid) == identities.log_id(uid)
    assert len(identities.log_id(uid)) == 12
    assert uid not in identities.log_id(uid)
