"""What compressed frames promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import get_frame

from dicom_listener.codestream import Promise, promise_of
from dicom_listener.pixels import grey_frame, number_of_frames
from fhir_records.errors import PixelsNotReadable

COMPRESSED = ("JPEG2000Lossless", "JPEGLSLossless", "JPEGLSLossy", "JPEGProcess14T", "JPEGProcess1T", "JPEGProcess2_4")


@pytest.mark.parametrize("word", COMPRESSED)
def test_size_is_read_from_real_codestreams(test_data: Path, word: str) -> None:
    """JPEG, JPEG-LS and JPEG 2000 frames say their rows, columns, samples and bits."""
    (path,) = (test_data / "dicom" / "transfer_syntaxes").glob(f"CTImage.dcm_{word}*")
    ds = dcmread(path)
    promise = promise_of(get_frame(ds.PixelData, 0, number_of_frames=number_of_frames(ds)))
    assert promise is not None
    assert (promise.rows, promise.columns, promise.components) == (512, 512, 1)
    assert promise.precision in (ds.BitsStored, 12 if word == "JPEGProcess2_4" else ds.BitsStored)


def test_htj2k_says_its_size(test_data: Path) -> None:
    """HTJ2K has the header of JPEG 2000; rows and columns are not mixed up."""
    ds = dcmread(test_data / "dicom" / "assorted" / "HTJ2K_08_RGB.dcm")
    assert promise_of(get_frame(ds.PixelData, 0, number_of_frames=1)) == Promise(480, 640, 3, 8)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_noise_says_nothing_or_something(noise: bytes) -> None:
    """No input brings it to an error, or to run on."""
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51"):
        promise_of(start + noise)


@pytest.mark.parametrize(("word", "offset"), [("JPEG2000Lossless", 8), ("JPEGLSLossless", None)])
def test_bomb_is_not_lit(test_data: Path, tmp_path: Path, word: str, offset: int | None) -> None:
    """A codestream that promises another size than the header is not handed to a decoder."""
    (path,) = (test_data / "dicom" / "transfer_syntaxes").glob(f"CTImage.dcm_{word}*")
    content = bytearray(path.read_bytes())
    if offset is not None:
        at = content.index(b"\xff\x4f\xff\x51") + offset
        content[at : at + 8] = b"\x00\x01\x00\x00" * 2
    else:
        at = content.index(b"\xff\xf7") + 5
        content[at : at + 4] = b"\xff\xff\xff\xff"
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(content)
    with pytest.raises(PixelsNotReadable, match="codestream"):
        grey_frame(bomb)
