"""DICOMweb's parts without a server: media types, questions, and objects as they are delivered."""

from __future__ import annotations

import datetime as dt
import json
from email import message_from_bytes
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydicom import config, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)
from starlette.datastructures import QueryParams

from fhir_records.errors import PixelsNotReadable, QueryError
from fhir_records.model import Instance, InstanceKind, Standing
from fhir_records.store.image_search import ImageQuery
from web import dicomweb_objects as objects
from web.dicomweb_answers import json_of
from web.dicomweb_attributes import as_text, attributes
from web.dicomweb_objects import Rendering
from web.dicomweb_query import STUDY_KEYS, Question, image_query
from web.media_types import DICOM, JPEG, OCTET_STREAM, PNG, accepted, multipart

ADDRESS = "http://test/dicom-web/studies/1/series/2/instances/3"


# Media types


def test_accept_is_ordered_by_quality_and_refusals_drop_out() -> None:
    """The most wanted range comes first; one of quality 0 is not accepted at all."""
    ranges = accepted("image/png;q=0.5, image/jpeg, text/html;q=0, */*;q=0.1")
    assert [one.kind for one in ranges] == ["image/jpeg", "image/png", "*/*"]
    assert ranges[0].covers(JPEG)
    assert not ranges[0].covers(PNG)
    assert ranges[2].covers(PNG)


def test_multipart_range_names_its_parts() -> None:
    """A multipart range covers parts of the type that it names, quoted or not, and of any type where it names none."""
    for header in (
        f'multipart/related; type="{OCTET_STREAM}"; transfer-syntax=*',
        f"multipart/related;type={OCTET_STREAM}",
    ):
        (wanted,) = accepted(header)
        assert wanted.covers_parts(OCTET_STREAM)
        assert not wanted.covers_parts(DICOM)
    assert accepted("multipart/related")[0].covers_parts(DICOM)
    assert accepted("")[0].covers_parts(DICOM), "no header accepts anything"


def test_accept_parameter_goes_before_the_header() -> None:
    """A link can ask for a type that the browser's own header does not put first."""
    assert accepted("text/html", "image/png")[0].kind == "image/png"


def test_multipart_body_is_read_back_by_another_parser() -> None:
    """Two binary parts come back whole, with their types, from the standard library's parser."""
    contents = [b"\x00\r\n--\xff\r\n", b"second"]
    kind, body = multipart(OCTET_STREAM, (({"Content-Type": OCTET_STREAM}, [content]) for content in contents))
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + b"".join(body))
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part.get_payload(decode=True) for part in parts] == contents
    assert {part.get_content_type() for part in parts} == {OCTET_STREAM}


# Questions


def question(text: str) -> Question:
    return Question(QueryParams(text), STUDY_KEYS)


def asked(text: str, zone: str = "UTC") -> ImageQuery:
    found = image_query(question(text), ZoneInfo(zone), 1000)
    assert found is not None
    return found


def test_study_question_is_read_by_keyword_and_by_tag() -> None:
    """Keywords and tags mean the same; a day is the site's day; an unknown attribute is named as not matched."""
    found = asked(
        "00100020=P1&PatientName=Doe*&StudyDate=20261101-20261102&limit=5&offset=10&PatientBirthDate=-19991231",
        "Asia/Kolkata",
    )
    assert (found.born_from, found.born_until) == (None, dt.date(1999, 12, 31))
    assert (found.patient_id, found.patient_name, found.limit, found.offset) == ("P1", "Doe*", 5, 10)
    assert found.started_from == dt.datetime(2026, 10, 31, 18, 30, tzinfo=dt.UTC)
    assert found.started_before == dt.datetime(2026, 11, 2, 18, 30, tzinfo=dt.UTC)
    assert question("Modality=CT&accept=x").ignored == ["Modality"]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("20261101", 1, 2), ("20261101-", 1, None), ("-20261101", None, 2), ("", None, None)],
)
def test_open_date_ranges(text: str, first: int | None, last: int | None) -> None:
    """A day, and a range that is open at either end, say from when and before when."""
    found = asked(f"StudyDate={text}")
    day = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    assert found.started_from == (None if first is None else day)
    assert found.started_before == (None if last is None else day + dt.timedelta(days=1))


@pytest.mark.parametrize("text", ["StudyDate=2026-11-01", "StudyDate=20261399", "StudyDate=-", "limit=-1", "offset=x",
                                  "includefield=NoSuchKeyword"])  # fmt: skip
def test_bad_questions_are_refused(text: str) -> None:
    """What cannot be understood is refused, not ignored."""
    with pytest.raises(QueryError):
        asked(text)


def test_empty_values_have_no_value_in_json() -> None:
    """An attribute without a value is there with its VR alone; zero is a value."""
    found = json_of({"AccessionNumber": "", "SeriesNumber": 0, "ModalitiesInStudy": ["CT", "SR"]})
    assert found["00080050"] == {"vr": "SH"}
    assert found["00200011"] == {"vr": "IS", "Value": [0]}
    assert found["00080061"] == {"vr": "CS", "Value": ["CT", "SR"]}


# Objects


def image(pixels: np.ndarray[Any, Any], **more: Any) -> Dataset:
    """An image object of (frames, rows, columns) or (frames, rows, columns, 3)."""
    ds = Dataset()
    ds.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.PatientName = "Doe^Jané"
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.NumberOfFrames, ds.Rows, ds.Columns = pixels.shape[:3]
    ds.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    if pixels.ndim == 4:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def stored(folder: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> tuple[Path, Instance]:
    """``ds`` as a file in a transfer syntax, and its row."""
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax == RLELossless:
        ds.compress(RLELossless)
        dcmwrite(path, ds, enforce_file_format=True)
    else:
        little = syntax != ExplicitVRBigEndian
        if not little and ds.BitsAllocated == 16:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
        dcmwrite(path, ds, enforce_file_format=True)
    instance = Instance(
        id=1, study_uid="1", series_uid="2", sop_uid=ds.SOPInstanceUID, sop_class_uid=ds.SOPClassUID,
        transfer_syntax_uid=str(syntax), kind=InstanceKind.IMAGE, standing=Standing.CURRENT, modality="OT",
        series_number=1, series_description="", instance_number=1, number_of_frames=int(ds.NumberOfFrames),
        rows=ds.Rows, columns=ds.Columns, file_key=path.name, sha256="", size=0, received_at=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    return path, instance


def grey() -> np.ndarray[Any, Any]:
    """Three frames of 4 by 6 pixels, no two values alike."""
    return (np.arange(72, dtype="<u2") * 257).reshape(3, 4, 6)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_frames_are_little_endian_whatever_is_stored(tmp_path: Path, syntax: str) -> None:
    """Each frame of a grey object comes out as the same little endian bytes, from every transfer syntax."""
    path, instance = stored(tmp_path, image(grey()), syntax)
    for number, frame in enumerate(grey(), start=1):
        assert objects.frame_bytes(path, instance, number) == frame.tobytes()


def test_native_frame_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of a natively stored object needs no decoder: the stored bytes are delivered."""
    monkeypatch.setattr(objects.pixels, "native_frame", None)
    path, instance = stored(tmp_path, image(grey()))
    assert objects.frame_bytes(path, instance, 2) == grey()[1].tobytes()


def test_single_bits_stay_packed(tmp_path: Path) -> None:
    """Frames of single bits that start within a byte are delivered packed, each from a byte of its own."""
    bits = np.array([[[1, 0, 1], [0, 1, 1]], [[0, 1, 1], [1, 0, 0]]], dtype=np.uint8)
    ds = image(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    path, instance = stored(tmp_path, ds)
    for number, frame in enumerate(bits, start=1):
        assert objects.frame_bytes(path, instance, number) == np.packbits(frame.ravel(), bitorder="little").tobytes()


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    """A frame whose bytes are not all there is no frame."""
    path, instance = stored(tmp_path, image(grey()))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(PixelsNotReadable):
        objects.frame_bytes(path, instance, 3)


def test_attributes_say_what_the_frames_are(tmp_path: Path) -> None:
    """Decoded colour is RGB by pixel in the bytes, and so in the attributes, though the object says YBR_FULL."""
    colour = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    path, instance = stored(tmp_path, image(colour, PhotometricInterpretation="YBR_FULL"), RLELossless)
    found = attributes(path, instance, ADDRESS)
    assert found["00280004"]["Value"] == ["RGB"]
    assert found["00280006"]["Value"] == [0]
    assert found["00083002"]["Value"] == [str(ExplicitVRLittleEndian)]
    assert len(objects.frame_bytes(path, instance, 1)) == 4 * 6 * 3
    native_path, native = stored(tmp_path, image(colour, PhotometricInterpretation="YBR_FULL"))
    assert attributes(native_path, native, ADDRESS)["00280004"]["Value"] == ["YBR_FULL"]
    assert objects.frame_bytes(native_path, native, 2) == colour[1].tobytes()


def test_attributes_are_unicode_and_long_binaries_are_addresses(tmp_path: Path) -> None:
    """Names are UTF-8, pixels and long private binaries are addresses, palettes stay."""
    ds = image(grey())
    ds.RedPaletteColorLookupTableData = bytes(8192)
    block = ds.private_block(0x0099, "WETREAD TEST", create=True)
    block.add_new(1, "OB", bytes(8192))
    block.add_new(2, "OB", b"ab")
    path, instance = stored(tmp_path, ds)
    found = attributes(path, instance, ADDRESS)
    assert found["00100010"]["Value"][0]["Alphabetic"] == "Doe^Jané"
    assert found["00080005"]["Value"] == ["ISO_IR 192"]
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{ADDRESS}/bulkdata/7FE00010"}
    assert found["00991001"] == {"vr": "OB", "BulkDataURI": f"{ADDRESS}/bulkdata/00991001"}
    assert found["00991002"]["InlineBinary"] == "YWI="
    assert len(found["00281201"]["InlineBinary"]) > 8192


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    """With tags given, just these come, and those that are needed to read them do not."""
    path, instance = stored(tmp_path, image(grey()), ImplicitVRLittleEndian)
    assert set(attributes(path, instance, ADDRESS, {0x00280010, 0x00100020})) == {"00280010"}


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    """Not-a-number and infinity, met in real headers, do not make the answer unreadable."""
    path, instance = stored(
        tmp_path, image(grey(), FrameReferenceTime=1.0, DiffusionGradientOrientation=[float("nan"), 1.0, float("inf")])
    )
    text = as_text(attributes(path, instance, ADDRESS))
    assert json.loads(text)["00189089"]["Value"] == [None, 1.0, None]


def test_broken_values_do_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute whose value cannot be parsed is left out; the rest of the object is described."""
    ds = image(grey())
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    ds.SliceThickness = "1"
    path, instance = stored(tmp_path, ds)
    path.write_bytes(path.read_bytes().replace(b"\x18\x00\x50\x00DS\x02\x001 ", b"\x18\x00\x50\x00DS\x02\x00xy"))
    found = attributes(path, instance, ADDRESS)
    assert "00180050" not in found
    assert found["00280010"]["Value"] == [4]


def drawn(path: Path, kind: str = PNG, **how: Any) -> bytes:
    """The first frame as a file."""
    return objects.written(iter([objects.picture(path, 1, Rendering(**how))]), kind)


def test_picture_keeps_the_shape_within_the_size_asked_for(tmp_path: Path) -> None:
    """A thumbnail has the image's own proportions, whatever the box."""
    path, _ = stored(tmp_path, image(np.tile(grey(), (1, 10, 10))))
    content = drawn(path, size=(30, 30))
    assert content.startswith(b"\x89PNG")
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (30, 20)
    assert drawn(path, JPEG).startswith(b"\xff\xd8")


def test_region_of_a_picture_is_cut_out_and_turned_over(tmp_path: Path) -> None:
    """A region is that part of the image; a negative width is the mirror image of it."""
    path, _ = stored(tmp_path, image(grey()))
    whole = np.asarray(objects.picture(path, 1, Rendering()))
    part = np.asarray(objects.picture(path, 1, Rendering(region=(2, 1, 3, 2))))
    assert np.array_equal(part, whole[1:3, 2:5])
    assert np.array_equal(np.asarray(objects.picture(path, 1, Rendering(region=(2, 1, -3, 2)))), part[:, ::-1])
    with pytest.raises(QueryError, match="outside"):
        objects.picture(path, 1, Rendering(region=(90, 1, 3, 2)))


def test_window_function_decides_on_the_shape_of_the_window(tmp_path: Path) -> None:
    """A sigmoid window differs from a linear one, and goes through half at its centre."""
    path, _ = stored(tmp_path, image(grey()))
    linear = np.asarray(objects.picture(path, 1, Rendering(window=(3000.0, 4000.0))))
    sigmoid = np.asarray(objects.picture(path, 1, Rendering(window=(3000.0, 4000.0), function="SIGMOID")))
    assert not np.array_equal(linear, sigmoid)
    assert abs(int(sigmoid.flat[12]) - 128) < 8
