"""The sample study: geometry, headers, and that it shows what it says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset

from deploy.phantom import phantom_study, write_study
from dicom_listener.pixels import grey_frame
from fhir_records.identities import UUID_UID_ROOT
from tests.peers import dciodvfy

SLICES = 8  # as few as there may be: the tests are to be fast


@pytest.fixture(scope="module")
def study() -> list[Dataset]:
    """A small phantom study with a lesion."""
    return phantom_study(3, SLICES)


def stored(ds: Dataset) -> npt.NDArray[np.int64]:
    """The image's stored values, shape (rows, columns)."""
    return np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).astype(np.int64)


def test_every_object_is_clean(study: list[Dataset], tmp_path: Path) -> None:
    """`dciodvfy` finds neither an error nor a warning in any object."""
    for path in write_study(study, tmp_path):
        verdict = dciodvfy(path)
        assert (verdict.errors, verdict.warnings) == ((), ())
        assert "MRImage" in verdict.output


def test_the_files_can_be_read_back(study: list[Dataset], tmp_path: Path) -> None:
    """The files hold the same pixels, for pydicom and for our own decoder."""
    paths = write_study(study, tmp_path / "new folder")
    assert len(paths) == SLICES
    for ds, path in zip(study, paths, strict=True):
        assert pydicom.dcmread(path).SOPInstanceUID == ds.SOPInstanceUID
        assert np.array_equal(grey_frame(path), stored(ds).astype(np.float32))


def test_nobody_could_take_it_for_a_person(study: list[Dataset]) -> None:
    """Name, identifier and description say that this is a phantom, and no birth date makes a person of it."""
    ds = study[0]
    assert str(ds.PatientName) == "Phantom^Wetread"
    assert ds.PatientID == "WETREAD-DEMO"
    assert ds.PatientBirthDate == ""
    assert "phantom" in ds.StudyDescription.lower()


def test_the_slices_lie_where_they_say(study: list[Dataset]) -> None:
    """Positions rise by the stated spacing along the normal, in one frame of reference, numbered from 1."""
    positions = np.array([[float(value) for value in ds.ImagePositionPatient] for ds in study])
    spacing = float(study[0].SpacingBetweenSlices)
    assert np.allclose(np.diff(positions, axis=0), [0, 0, spacing], atol=1e-3)
    assert [ds.InstanceNumber for ds in study] == list(range(1, SLICES + 1))
    assert len({ds.FrameOfReferenceUID for ds in study}) == len({ds.SeriesInstanceUID for ds in study}) == 1
    # The middle of the image is the middle of the head.
    width = float(study[0].PixelSpacing[0]) * (study[0].Columns - 1)
    assert positions[0, 0] == pytest.approx(-width / 2, abs=1e-3)


def test_the_usual_study_has_thin_enough_slices() -> None:
    """24 slices, as the demo sends, lie 5 mm apart and are 256 by 256 pixels of 16 bits."""
    study = phantom_study(0)
    assert len(study) == 24
    assert float(study[0].SpacingBetweenSlices) == 5.0
    assert (study[0].Rows, study[0].Columns, study[0].BitsAllocated) == (256, 256, 16)


def test_the_same_seed_gives_the_same_pixels(study: list[Dataset]) -> None:
    """Pixels follow from the seed alone; UIDs are new each time."""
    again = phantom_study(3, SLICES)
    other = phantom_study(4, SLICES)
    assert [ds.PixelData for ds in study] == [ds.PixelData for ds in again]
    assert [ds.PixelData for ds in study] != [ds.PixelData for ds in other]
    uids = {ds.StudyInstanceUID for ds in (*study, *again)}
    assert len(uids) == 2
    assert not {ds.SOPInstanceUID for ds in study} & {ds.SOPInstanceUID for ds in again}


def test_a_given_study_uid_gives_the_same_objects() -> None:
    """The same study can be made again, UID for UID and byte for byte."""
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    first, second = (phantom_study(1, SLICES, study_uid="2.25.42", acquired_at=at) for _ in range(2))
    assert first == second
    assert first[0].StudyInstanceUID == "2.25.42"
    assert (first[0].StudyDate, first[0].StudyTime, first[0].TimezoneOffsetFromUTC) == ("20260102", "030405", "+0000")


def test_uids_are_valid(study: list[Dataset]) -> None:
    """Every UID is a UUID's, of at most 64 characters."""
    for ds in study:
        for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.FrameOfReferenceUID):
            assert uid.startswith(f"{UUID_UID_ROOT}.")
            assert uid.is_valid


def test_the_lesion_is_bright_and_on_one_side() -> None:
    """With a lesion, one hemisphere holds enhancing tissue over several slices; without, neither does."""
    # Columns and rows inside the skull, at heights where nothing else of size enhances.
    inner = np.s_[5:18, 70:186, 70:186]
    with_lesion = np.stack([stored(ds) for ds in phantom_study(3, 24)])[inner] > 2500
    without = np.stack([stored(ds) for ds in phantom_study(3, 24, lesion=False)])[inner] > 2500
    halves = [half.sum(axis=(1, 2)) for half in np.split(with_lesion, 2, axis=2)]
    assert max((half > 150).sum() for half in halves) >= 4
    assert min((half > 150).sum() for half in halves) == 0
    assert without.sum(axis=(1, 2)).max() < 100


def test_the_background_is_noise_and_no_value_is_clipped(study: list[Dataset]) -> None:
    """Air holds noise, as in a real magnitude image, and the stored values stay within the bits stated."""
    for ds in study:
        corner = stored(ds)[:20, :20]
        assert 0 < corner.mean() < 200
        assert corner.std() > 5
        assert stored(ds).max() < 2**ds.BitsStored


@pytest.mark.parametrize("slices", [0, 7, -1])
def test_too_few_slices_are_refused(slices: int) -> None:
    """So few slices show no head, and the error names the number."""
    with pytest.raises(ValueError, match=str(slices)):
        phantom_study(0, slices)
