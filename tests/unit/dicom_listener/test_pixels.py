"""The decoder, on small made objects and on every object of the test data."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_listener.pixels import display_frame, grey_frame, native_frame, number_of_frames, read_header
from dicom_listener.received import split_file
from dicom_listener.transfer_syntaxes import TRANSFER_SYNTAXES
from fhir_records.errors import PixelsNotReadable
from tests.peers import run_program
from tests.unit.dicom_listener.objects import as_file, image, with_transfer_syntax

# Objects that are no images.
NOT_DECODED = {
    "no-pixel-data.dcm",
    "rwvm.dcm",
    "sr.dcm",
}


def _file(tmp_path: Path, ds: Dataset, syntax: str = "1.2.840.10008.1.2.1") -> Path:
    path = tmp_path / "object.dcm"
    path.write_bytes(as_file(ds, syntax))
    return path


def test_grey_frame_applies_the_rescale(tmp_path: Path) -> None:
    """Grey values are in modality units."""
    path = _file(tmp_path, image(RescaleSlope="2", RescaleIntercept="-10"))
    grey = grey_frame(path)
    assert grey.dtype == np.float32
    assert grey.shape == (4, 6)
    assert grey[0, 0] == -10
    assert grey[3, 5] == 36


def test_monochrome1_is_turned_over(tmp_path: Path) -> None:
    """In MONOCHROME1 the least value is white, and comes out brightest."""
    path = _file(tmp_path, image(PhotometricInterpretation="MONOCHROME1"))
    grey, shown = grey_frame(path), display_frame(path)
    assert grey[0, 0] == 4095
    assert grey[3, 5] == 4095 - 23
    assert shown[0, 0] == 255
    assert shown[3, 5] == 0


def test_window_is_applied_as_the_standard_says(tmp_path: Path) -> None:
    """A window of the object maps centre to middle grey, and what lies outside to black and white."""
    shown = display_frame(_file(tmp_path, image(WindowCenter="12", WindowWidth="11"))).ravel()
    assert shown[6] == 0
    assert shown[17] == 255
    # PS3.3 section C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) of the range
    assert shown[12] == round(((12 - 11.5) / 10 + 0.5) * 255)


def test_asked_window_goes_before_the_objects_own(tmp_path: Path) -> None:
    """A window that is asked for is used instead of the object's."""
    path = _file(tmp_path, image(WindowCenter="12", WindowWidth="11"))
    shown = display_frame(path, window=(5.0, 2.0)).ravel()
    assert shown[4] == 0
    assert shown[6] == 255


def test_voi_lut_goes_before_the_window(tmp_path: Path) -> None:
    """An object's VOI LUT is used where it has one."""
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [24, 0, 8])
    lut.add_new("LUTData", "US", [255] * 12 + [0] * 12)
    shown = display_frame(_file(tmp_path, image(VOILUTSequence=[lut], WindowCenter="12", WindowWidth="11"))).ravel()
    assert set(shown[:12]) == {255}
    assert set(shown[12:]) == {0}


def test_frame_without_window_is_stretched_without_its_padding(tmp_path: Path) -> None:
    """With no window, the frame's own range is shown; padding does not count."""
    values = np.arange(24, dtype="<u2") + 100
    values[0] = 0
    ds = image(PixelData=values.tobytes())
    ds.add_new("PixelPaddingValue", "US", 0)
    shown = display_frame(_file(tmp_path, ds)).ravel()
    assert shown[0] == 0
    assert shown[1] == 0
    assert shown[23] == 255


def test_functional_groups_give_each_frame_its_own_transformation(tmp_path: Path) -> None:
    """Per-frame rescale goes before the shared one."""

    def group(slope: str) -> Dataset:
        values, item = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, "0"
        item.PixelValueTransformationSequence = [values]
        return item

    ds = image(
        Rows=2,
        NumberOfFrames="2",
        SharedFunctionalGroupsSequence=[group("5")],
        PerFrameFunctionalGroupsSequence=[Dataset(), group("10")],
    )
    path = _file(tmp_path, ds)
    assert grey_frame(path, 1)[0, 1] == 5
    assert grey_frame(path, 2)[0, 0] == 120


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    """The grey of pure green is its share of luminance."""
    ds = image(
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PlanarConfiguration=0,
        PixelData=bytes([0, 255, 0]) * 24,
    )
    path = _file(tmp_path, ds)
    assert grey_frame(path)[0, 0] == pytest.approx(149.685)
    assert display_frame(path).shape == (4, 6, 3)
    assert native_frame(path).photometric_interpretation == "RGB"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_native_frame_is_the_same_in_every_lossless_syntax(tmp_path: Path, syntax: str) -> None:
    """The stored values do not depend on the encoding."""
    ds = image()
    if syntax == RLELossless:
        as_file(ds)
        ds.compress(RLELossless, generate_instance_uid=False)
    frame = native_frame(_file(tmp_path, ds, syntax))
    assert frame.pixels.ravel().tolist() == list(range(24))
    assert (frame.bits_allocated, frame.bits_stored, frame.high_bit, frame.pixel_representation) == (16, 12, 11, 0)


def test_frame_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    """A header that promises too many pixels is not believed."""
    path = _file(tmp_path, image())
    with pytest.raises(PixelsNotReadable, match="larger than the limit of 23"):
        grey_frame(path, max_pixels=23)


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"PhotometricInterpretation": None}, "PhotometricInterpretation"), ({"Rows": None}, "Rows")],
)
def test_missing_attribute_is_named(tmp_path: Path, changed: dict[str, None], told: str) -> None:
    """The message says which attribute is missing."""
    with pytest.raises(PixelsNotReadable, match=told):
        grey_frame(_file(tmp_path, image(**changed)))


def test_frame_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Frames count from 1 to NumberOfFrames."""
    path = _file(tmp_path, image())
    for frame in (0, 2):
        with pytest.raises(PixelsNotReadable, match=f"Frame {frame}"):
            native_frame(path, frame)


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    """Random bytes are no image, and a file that is not there is none either."""
    path = tmp_path / "noise"
    path.write_bytes(b"noise" * 100)
    for broken in (path, tmp_path / "absent"):
        with pytest.raises(PixelsNotReadable):
            read_header(broken)


def test_every_object_of_the_test_data_is_decoded_or_refused_by_name(test_data: Path) -> None:
    """All transfer syntaxes are decoded but the named ones, first and last frame, and refused in words otherwise."""
    series = [sorted((test_data / "dicom" / name).glob("*.dcm"))[:2] for name in ("philips_brain_mr", "ge_fruit_mr")]
    others = [sorted((test_data / "dicom" / name).glob("*.dcm")) for name in ("transfer_syntaxes", "assorted")]
    reports = sorted((test_data / "dicom" / "sr_tid1500").glob("*.dcm"))
    refused = set()
    for path in sum([*series, *others], reports):
        ds = read_header(path)
        try:
            for frame in {1, number_of_frames(ds)}:
                shown = display_frame(path, frame)
                assert shown.dtype == np.uint8
                assert shown.shape[:2] == grey_frame(path, frame).shape == (ds.Rows, ds.Columns)
        except PixelsNotReadable as error:
            assert "transfer syntax" in str(error) or "missing" in str(error)
            refused.add(path.name)
    assert refused == NOT_DECODED


def test_one_ct_looks_the_same_in_every_lossless_syntax(test_data: Path) -> None:
    """Each lossless encoding of the same CT gives the same grey values."""
    folder = test_data / "dicom" / "transfer_syntaxes"
    first = grey_frame(folder / "CTImage.dcm")
    words = ("BigEndian", "Deflated", "JPEG2000Lossless", "JPEGLSLossless", "Process14SV1", "Process14T", "RLE")
    for word in words:
        (path,) = folder.glob(f"CTImage.dcm_*{word}*")
        assert np.array_equal(first, grey_frame(path)), word


@pytest.mark.parametrize("word", ["Process2_4", "Process6_8", "Process10_12"])
def test_12_bit_jpeg_gives_the_values_that_dcmtk_gives(test_data: Path, tmp_path: Path, word: str) -> None:
    """Sequential and progressive 12-bit JPEG is decoded to the very values of DCMTK's decoder."""
    (path,) = (test_data / "dicom" / "transfer_syntaxes").glob(f"CTImage.dcm_JPEG{word}*")
    run = run_program("dcmdjpeg", str(path), str(tmp_path / "plain.dcm"))
    assert run.status == 0, run.output
    assert np.array_equal(native_frame(path).pixels, native_frame(tmp_path / "plain.dcm").pixels)
    assert native_frame(path).pixels.max() > 255


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_looking_values_up_shows_what_computing_them_shows(tmp_path: Path, signed: int, interpretation: str) -> None:
    """Each stored value is shown as it would be alone, whatever its sign, in a frame of more than one block."""
    values = np.random.default_rng(1).integers(-2048 if signed else 0, 2048, (1100, 1000)).astype("<i2")
    ds = image(
        Rows=1100,
        Columns=1000,
        PixelRepresentation=signed,
        PhotometricInterpretation=interpretation,
        WindowCenter="40",
        WindowWidth="400",
        RescaleSlope="1",
        RescaleIntercept="-100",
        PixelData=values.tobytes(),
    )
    brightness = np.clip((values.astype(float) - 100 - 39.5) / 399 + 0.5, 0, 1)
    expected = np.rint((1 - brightness if interpretation == "MONOCHROME1" else brightness) * 255)
    assert np.array_equal(display_frame(_file(tmp_path, ds)), expected)


@pytest.mark.parametrize("uid", sorted(uid for uid, one in TRANSFER_SYNTAXES.items() if not one.is_decoded))
def test_picture_that_cannot_be_shown_is_explained(tmp_path: Path, uid: str) -> None:
    """Video, JPEG XL and what else has no decoder are refused with the words of the table."""
    path = tmp_path / "object.dcm"
    content = as_file(image(PixelData=encapsulate([b"no codestream"])), RLELossless)
    path.write_bytes(with_transfer_syntax(content, uid))
    with pytest.raises(PixelsNotReadable) as caught:
        display_frame(path)
    assert str(caught.value) == TRANSFER_SYNTAXES[uid].why_not
    assert TRANSFER_SYNTAXES[uid].name in str(caught.value)


def test_encapsulated_uncompressed_frames_are_decoded(tmp_path: Path) -> None:
    """A frame of Encapsulated Uncompressed Explicit VR Little Endian has the values of its fragment."""
    frames = [np.arange(24, dtype="<u2") + 100 * number for number in range(2)]
    ds = image(NumberOfFrames="2", PixelData=encapsulate([frame.tobytes() for frame in frames]))
    path = tmp_path / "object.dcm"
    path.write_bytes(with_transfer_syntax(as_file(ds, RLELossless), "1.2.840.10008.1.2.1.98"))
    for number, frame in enumerate(frames, 1):
        assert np.array_equal(native_frame(path, number).pixels.ravel(), frame)


@pytest.mark.parametrize(
    "changed", [{"SamplesPerPixel": 60000}, {"BitsAllocated": 65528}, {"Rows": 9999, "SamplesPerPixel": 60000}]
)
def test_frame_of_too_many_bytes_is_refused(tmp_path: Path, changed: dict[str, int]) -> None:
    """Few pixels with absurd samples or bits are no way around the limit."""
    path = _file(tmp_path, image(Columns=9999, **{"Rows": 999, **changed}))
    with pytest.raises(PixelsNotReadable, match="larger than the limit"):
        display_frame(path)


def test_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    """Of a data set that inflates without end, only so much is ever held in memory."""
    path = _file(tmp_path, image(), DeflatedExplicitVRLittleEndian)
    head, _ = split_file(path.read_bytes())
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = b"".join(deflater.compress(bytes(1 << 24)) for _ in range(40)) + deflater.flush()
    start = path.read_bytes()[: 144 + head.FileMetaInformationGroupLength]
    path.write_bytes(start + bomb)
    with pytest.raises(PixelsNotReadable, match="larger than the limit"):
        display_frame(path)
