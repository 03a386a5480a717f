"""What slices' places tell of a series."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from inference.stack import frame_positions, in_order, missing_numbers, missing_slices, several_in_one_place


def _enhanced(positions: list[float], orientation: bool = True) -> Dataset:
    """An enhanced object whose frames lie at these places along z."""
    shared, ds = Dataset(), Dataset()
    if orientation:
        plane = Dataset()
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PlaneOrientationSequence = Sequence([plane])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for position in positions:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, position]
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return ds


def test_frames_have_places_of_their_own() -> None:
    """Frame positions come from the functional groups, the orientation shared by all."""
    assert frame_positions(_enhanced([4.0, 2.0, 3.0])) == (4.0, 2.0, 3.0)


def test_frames_without_an_orientation_have_none() -> None:
    """Half a geometry is none: nothing is guessed."""
    assert frame_positions(_enhanced([4.0, 2.0], orientation=False)) == ()
    assert frame_positions(Dataset()) == ()


def test_a_gap_tells_how_many_slices_are_missing() -> None:
    """A step of four spacings lacks three slices; uneven steps lack none."""
    assert missing_slices([0, 2, 4, 12, 14, 16]) == 3
    assert missing_slices([0, 2.1, 3.9, 6.2, 8]) == 0
    assert missing_slices([0, 5]) == 0


def test_numbers_tell_where_places_do_not() -> None:
    """A number left out of a count is a missing image; numbers that are no count tell nothing."""
    assert missing_numbers([1, 2, 3, 6, 7]) == 2
    assert missing_numbers([10, 20, 30, 40]) == 0
    assert missing_numbers([0, 0, 0]) == 0


def test_echoes_share_their_places() -> None:
    """Two images at each place are told from a plain stack, and add no gap."""
    twice = [float(place) for place in range(10) for _ in range(2)]
    assert several_in_one_place(twice)
    assert missing_slices(twice) == 0
    assert not several_in_one_place([float(place) for place in range(10)])


def test_frames_are_put_in_order() -> None:
    """By place; two at one place stay as they came."""
    assert in_order([3.0, 1.0, 3.0, 0.0]).tolist() == [3, 1, 0, 2]
    assert np.array_equal(in_order([]), [])
