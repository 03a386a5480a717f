"""What the places of a series' slices tell: their order, slices in one place, slices that are missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pydicom

_GAP = 1.5  # of the usual spacing; below it lies the unevenness of real scans
_SAME = 0.05  # of the usual spacing: nearer ones lie in one place


def frame_positions(ds: pydicom.Dataset) -> tuple[float, ...]:
    """Where each frame lies along its normal, mm; () where the groups do not tell (PS3.3 section C.7.6.16)."""
    shared = list(ds.get("SharedFunctionalGroupsSequence") or [])[:1]
    frames = list(ds.get("PerFrameFunctionalGroupsSequence") or [])
    positions = []
    for frame in frames:
        try:
            orientation = _first(("PlaneOrientationSequence", "ImageOrientationPatient"), frame, *shared)
            place = _first(("PlanePositionSequence", "ImagePositionPatient"), frame, *shared)
            row, column = np.array(orientation, dtype=float).reshape(2, 3)
            positions.append(float(np.cross(row, column) @ np.array(place, dtype=float)))
        except (LookupError, TypeError, ValueError, StopIteration):
            return ()
    return tuple(positions)


def _first(path: tuple[str, str], *groups: pydicom.Dataset) -> object:
    sequence, keyword = path
    return next(group[sequence].value[0][keyword].value for group in groups if group.get(sequence))


def spacing(positions: Sequence[float]) -> float | None:
    """The usual distance of neighbouring slices, mm; None where fewer than three places differ."""
    steps = np.diff(np.unique(np.round(positions, 3)))
    return float(np.median(steps)) if len(steps) > 1 else None


def missing_slices(positions: Sequence[float]) -> int:
    """How many slices would fill the gaps between those given, mm along the normal."""
    usual = spacing(positions)
    if usual is None:
        return 0
    steps = np.diff(np.unique(np.round(positions, 3)))
    return int(sum(round(step / usual) - 1 for step in steps if step > _GAP * usual))


def missing_numbers(numbers: Sequence[int]) -> int:
    """How many Instance Numbers are left out between the lowest and the highest; 0 where they are not a count."""
    known = np.unique([number for number in numbers if number > 0])
    if len(known) < 3 or np.median(np.diff(known)) != 1:
        return 0
    return int(known[-1] - known[0] + 1 - len(known))


def several_in_one_place(positions: Sequence[float]) -> bool:
    """Whether most places hold more than one slice: echoes, phases or repetitions in one series."""
    usual = spacing(positions)
    ordered = np.sort(np.asarray(positions, dtype=float))
    if usual is None:
        return False
    return bool((np.diff(ordered) < _SAME * usual).mean() > 1 / 3)


def in_order(positions: Sequence[float]) -> npt.NDArray[np.int64]:
    """Indices of frames by their place; those of one place in the order given."""
    return np.argsort(np.asarray(positions, dtype=float), kind="stable")
