"""Images opened once: the same pixels as the decoder's, by a shorter way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_listener.pixels import grey_frame
from dicom_listener.stored import open_stored
from fhir_records.errors import PixelsNotReadable

KEYWORDS = ("Modality", "InstanceNumber")


def _object(pixels: np.ndarray, **changed: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "2.25.5"
    ds.Modality, ds.InstanceNumber, ds.PatientName = "MR", 7, "Somebody"
    private, nested = Dataset(), Dataset()
    nested.RetrieveURL = "x" * 40
    private.ReferencedSeriesSequence = [nested]
    private["ReferencedSeriesSequence"].is_undefined_length = True
    ds.ReferencedStudySequence = [private]
    ds["ReferencedStudySequence"].is_undefined_length = True
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in changed.items():
        setattr(ds, keyword, value)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _written(path: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    if syntax == RLELossless:
        ds.compress(RLELossless)
    ds.save_as(path, enforce_file_format=True)
    return path


def _pixels(kind: str, shape: tuple[int, ...] = (6, 9)) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype=kind)


@pytest.mark.parametrize("kind", ["u1", "i1", "<u2", "<i2"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"RescaleSlope": "2.5", "RescaleIntercept": "-1024"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "0.1", "RescaleIntercept": "3"},
    ],
)
def test_native_pixels_are_the_decoder_s(tmp_path: Path, kind: str, changed: dict[str, str]) -> None:
    """Every stored type, with and without rescale and turned over, gives exactly what `grey_frame` gives."""
    path = _written(tmp_path / "1.dcm", _object(_pixels(kind, (6, 10)), **changed))
    header, image = open_stored(path, KEYWORDS)
    assert image.native is not None
    assert np.array_equal(image.grey(), grey_frame(path))
    assert (header.Modality, header.InstanceNumber) == ("MR", 7)
    assert "PatientName" not in header


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, ExplicitVRLittleEndian]
)
def test_every_way_of_storing_is_read(tmp_path: Path, syntax: str) -> None:
    """Compressed and deflated objects go to the decoder and give the same pixels as native ones."""
    pixels = _pixels("<u2")
    header, image = open_stored(_written(tmp_path / "1.dcm", _object(pixels), syntax), KEYWORDS)
    assert np.array_equal(image.grey(), pixels.astype(np.float32))
    assert header.Modality == "MR"


def test_frames_of_a_native_object_are_read_each(tmp_path: Path) -> None:
    """A frame is read from its own place, with the rescale of its own functional group."""
    pixels = _pixels("<u2", (3, 6, 9))
    groups = []
    for number in range(3):
        group, rescale = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = str(number + 1), "10"
        group.PixelValueTransformationSequence = [rescale]
        groups.append(group)
    path = _written(tmp_path / "1.dcm", _object(pixels, PerFrameFunctionalGroupsSequence=groups))
    _, image = open_stored(path, KEYWORDS)
    assert image.native is not None
    for number in range(3):
        assert np.array_equal(image.grey(number + 1), pixels[number] * float(number + 1) + 10)
        assert np.array_equal(image.grey(number + 1), grey_frame(path, number + 1))
    with pytest.raises(PixelsNotReadable, match="Frame 4"):
        image.grey(4)


def test_colour_goes_to_the_decoder(tmp_path: Path) -> None:
    """Three samples a pixel become luminance, as everywhere else."""
    ds = _object(_pixels("u1", (6, 30)), SamplesPerPixel=3, PhotometricInterpretation="RGB", Columns=10)
    ds.PlanarConfiguration = 0
    path = _written(tmp_path / "1.dcm", ds)
    _, image = open_stored(path, KEYWORDS)
    assert image.native is None
    assert np.array_equal(image.grey(), grey_frame(path))


def test_a_file_cut_short_is_not_readable(tmp_path: Path) -> None:
    """Pixels that end early are an error in words, never a picture filled up with something."""
    path = _written(tmp_path / "1.dcm", _object(_pixels("<u2", (60, 90))))
    path.write_bytes(path.read_bytes()[:-4000])
    _, image = open_stored(path, KEYWORDS)
    with pytest.raises(PixelsNotReadable):
        image.grey()


@pytest.mark.parametrize("content", [b"", b"not DICOM", bytes(128) + b"DICM"])
def test_what_is_no_dicom_file_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """Nothing else than PixelsNotReadable comes out of a file that is none."""
    path = tmp_path / "1.dcm"
    path.write_bytes(content)
    with pytest.raises(PixelsNotReadable):
        open_stored(path, KEYWORDS)[1].grey()
    with pytest.raises(PixelsNotReadable):
        open_stored(tmp_path / "nowhere.dcm", KEYWORDS)


def test_the_test_images_give_the_decoder_s_pixels(test_data: Path) -> None:
    """Every real object that the decoder reads is read the same by the shorter way, odd ones included."""
    compared = 0
    for path in sorted((test_data / "dicom").glob("[ta]*/*")):
        try:
            expected = grey_frame(path)
        except PixelsNotReadable:
            continue
        assert np.array_equal(open_stored(path, KEYWORDS)[1].grey(), expected, equal_nan=True), path.name
        compared += 1
    assert compared > 20


def test_big_endian_values_are_turned_round(tmp_path: Path) -> None:
    """Explicit VR Big Endian, retired but met, gives the values that were meant."""
    pixels = _pixels("<u2")
    ds = _object(pixels)
    ds.PixelData = pixels.astype(">u2").tobytes()
    path = _written(tmp_path / "1.dcm", ds, ExplicitVRBigEndian)
    assert np.array_equal(open_stored(path, KEYWORDS)[1].grey(), pixels.astype(np.float32))
