"""The same object again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_listener.bounded import Bounds
from dicom_listener.digests import digests_of
from dicom_listener.received import file_header
from dicom_listener.sameness import Comparer, Sameness
from tests.unit.dicom_listener.objects import as_file, encoded, image, received


def _stored(folder: Path, name: str, ds: Dataset, syntax: str) -> tuple[Path, str]:
    path, data = folder / name, encoded(ds, syntax)
    path.write_bytes(file_header(received(ds, syntax)) + data)
    return path, digests_of(path).pixels_sha256


def _compared(folder: Path, one: Dataset, two: Dataset, syntaxes: tuple[str, str]) -> Sameness:
    first, first_pixels = _stored(folder, "one", one, syntaxes[0])
    second, second_pixels = _stored(folder, "two", two, syntaxes[1])
    with Comparer() as comparer:
        return comparer.compare(first, second, first_pixels, second_pixels)


PLAIN = (ExplicitVRLittleEndian, ExplicitVRLittleEndian)


@pytest.mark.parametrize("other", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_another_encoding_is_the_same_object(tmp_path: Path, other: str) -> None:
    """Only the encoding differs: the same."""
    ds = image()
    assert _compared(tmp_path, ds, copy.deepcopy(ds), (ExplicitVRLittleEndian, other)) is Sameness.SAME


def test_lossless_compression_is_the_same_object(tmp_path: Path) -> None:
    """Compressed and native pixels are compared decoded."""
    ds = image()
    packed = copy.deepcopy(ds)
    as_file(packed)
    packed.compress(RLELossless, generate_instance_uid=False)
    assert _compared(tmp_path, ds, packed, (ExplicitVRLittleEndian, RLELossless)) is Sameness.SAME


@pytest.mark.parametrize("changed", [{"PatientName": "Test^Two"}, {"PatientID": "PAT2"}, {"StudyDescription": "new"}])
def test_other_header_is_a_version(tmp_path: Path, changed: dict[str, Any]) -> None:
    """The same pixels with something else said about them are no copy."""
    ds = image()
    other = copy.deepcopy(ds)
    for keyword, value in changed.items():
        setattr(other, keyword, value)
    assert _compared(tmp_path, ds, other, PLAIN) is Sameness.HEADER_DIFFERS


def test_other_pixels_are_a_conflict(tmp_path: Path) -> None:
    """One changed pixel is enough."""
    ds = image()
    other = copy.deepcopy(ds)
    other.PixelData = bytes([9]) + ds.PixelData[1:]
    assert _compared(tmp_path, ds, other, PLAIN) is Sameness.PIXELS_DIFFER
    as_file(other)
    other.compress(RLELossless, generate_instance_uid=False)
    assert _compared(tmp_path, ds, other, (ExplicitVRLittleEndian, RLELossless)) is Sameness.PIXELS_DIFFER


@pytest.mark.parametrize("child", ["crashes", "hangs"])
def test_what_cannot_be_compared_within_the_limits_is_kept_apart(tmp_path: Path, child: str) -> None:
    """An object whose comparison ends or holds up the child is no copy, and whoever asked goes on."""
    ds = image()
    packed = copy.deepcopy(ds)
    as_file(packed)
    packed.compress(RLELossless, generate_instance_uid=False)
    first, first_pixels = _stored(tmp_path, "one", ds, ExplicitVRLittleEndian)
    second, second_pixels = _stored(tmp_path, "two", packed, RLELossless)
    with Comparer(Bounds(seconds=1.0, processes=1), f"tests.unit.dicom_listener.children.{child}") as comparer:
        assert comparer.compare(first, second, first_pixels, second_pixels) is Sameness.PIXELS_DIFFER
        assert comparer.compare(first, first, first_pixels, first_pixels) is Sameness.SAME, "which needs no child"
        assert comparer.compare(first, second, "same", "same") is Sameness.HEADER_DIFFERS
