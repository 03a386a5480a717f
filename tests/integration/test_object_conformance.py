"""Every object that we write under other people's eyes: dicom3tools, DCMTK, highdicom and pydicom, over all sources."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_records.renderings import kinds
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.result_page import KeyPicture
from tests.integration.object_sources import SAID, SOURCES, data_set, objects_about, rendered
from tests.peers import dciodvfy, run_program
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, PRESENT, header, ref, report_of


def assert_conforms(folder: Path, made: DicomObject, source: Path | None = None) -> None:
    """No error, and no warning but those that the same value causes in the source."""
    path = folder / f"{made.kind}.dcm"
    path.write_bytes(made.content)
    errors, warnings = dciodvfy(path)
    known = set(dciodvfy(source).warnings) if source else set()
    assert not errors, (made.kind, errors)
    assert not set(warnings) - known, (made.kind, set(warnings) - known)
    assert faults_of(made.content) == (), made.kind
    dump = run_program("dcmdump", str(path))
    assert dump.status == 0, dump.output


@pytest.mark.parametrize("answer", SAID)
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_every_source(tmp_path: Path, test_data: Path, name: str, answer: str) -> None:
    """Whatever kind of image is read or refused, each object about it conforms."""
    source = test_data / "dicom" / name
    _, objects = objects_about([source], SAID[answer])
    assert {kinds.SR, kinds.SECONDARY_CAPTURE} <= set(objects)
    assert (kinds.KEY_OBJECTS in objects) == (answer != "refused")
    for made in objects.values():
        assert_conforms(tmp_path, made, source)


@pytest.mark.parametrize("answer", SAID)
def test_real_head_series(tmp_path: Path, test_data: Path, answer: str) -> None:
    """Of 170 real objects with their faulty headers, each object conforms, a map on the key frames among them."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))
    _, objects = objects_about(paths, SAID[answer])
    assert (kinds.PARAMETRIC_MAP in objects) == (answer != "refused")
    for made in objects.values():
        assert_conforms(tmp_path, made, paths[0])


def test_the_map_lies_on_its_images(test_data: Path) -> None:
    """In highdicom's eyes the map has its values, and each frame lies where its source image does."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))
    report, objects = objects_about(paths, PRESENT)
    ds = data_set(objects[kinds.PARAMETRIC_MAP])
    frames = hd.Image.from_dataset(ds).get_frames(apply_real_world_transform=True)
    assert frames.shape == (2, ds.Rows, ds.Columns)
    assert frames.max() == pytest.approx(3.2, rel=0.02)
    row, column = np.unravel_index(frames[0].argmax(), frames[0].shape)
    assert row / ds.Rows == pytest.approx(0.4, abs=0.02)
    assert column / ds.Columns == pytest.approx(0.55, abs=0.02)
    by_uid = {instance.sop_uid: path for instance, path in zip(report.instances, paths, strict=True)}
    for group in ds.PerFrameFunctionalGroupsSequence:
        source = dcmread(by_uid[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID])
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        assert source.ImageOrientationPatient == pytest.approx(
            ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
        )


@pytest.mark.parametrize(
    ("charset", "patient"),
    [
        (None, "Curie^Marie"),
        ("ISO_IR 100", "Möller^Ægir"),
        ("ISO_IR 192", "Curie^Marie=居里^玛丽"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=홍^길동"),
        ("ISO_IR 144", "Люкceмбypг^Роза"),
        ("ISO_IR 166", "ไทย^ชื่อ"),
        ("ISO_IR 138", "שרון^דבורה"),
    ],
)
def test_character_sets(tmp_path: Path, charset: str | list[str] | None, patient: str) -> None:
    """A name in another script is the same in every object, and passes."""
    evidence = [header(SpecificCharacterSet=charset, PatientName=patient)]
    for made in rendered(report_of(evidence, ABSENT), evidence).values():
        assert str(data_set(made).PatientName) == patient, made.kind
        assert_conforms(tmp_path, made)


@pytest.mark.parametrize("modality", ["MR", "CT", "CR", "DX", "OT", "XX"])
def test_empty_headers(tmp_path: Path, modality: str) -> None:
    """A source with nothing in it but its UIDs and modality gives no error, and no warning but of the missing name."""
    bare = {element.keyword: None for element in header() if element.VR != "UI"}
    evidence = [header(**{**bare, "Modality": modality})]
    for made in rendered(report_of(evidence, ABSENT), evidence).values():
        path = tmp_path / f"{made.kind}.dcm"
        path.write_bytes(made.content)
        errors, warnings = dciodvfy(path)
        assert not errors, (made.kind, errors)
        assert all("DICOMDIR" in warning for warning in warnings), (made.kind, warnings)


@pytest.mark.parametrize(("said", "page", "pdf"), [("YES", "YES", "YES"), ("NO", "NO", "NO"), (None, None, "YES")])
def test_what_is_burnt_into_the_key_image(said: str | None, page: str | None, pdf: str) -> None:
    """A page never claims that its pixels are free of annotation where the image that it shows does not."""
    evidence = [header(BurnedInAnnotation=said)]
    picture = KeyPicture(ref(evidence[0]), np.zeros((8, 8), np.uint8), None)
    objects = rendered(report_of(evidence, ABSENT), evidence, picture=picture)
    assert data_set(objects[kinds.SECONDARY_CAPTURE]).get("BurnedInAnnotation") == page
    assert data_set(objects[kinds.ENCAPSULATED_PDF]).BurnedInAnnotation == pdf
    bare = rendered(report_of(evidence, ABSENT), evidence)
    assert data_set(bare[kinds.SECONDARY_CAPTURE]).BurnedInAnnotation == "NO"


def test_the_same_report_gives_the_same_bytes(test_data: Path) -> None:
    """No clock and no chance: rendered twice, every object is the same to the byte."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))[80:90]
    assert objects_about(paths, PRESENT)[1] == objects_about(paths, PRESENT)[1]


def test_objects_have_uids_and_series_of_their_own(test_data: Path) -> None:
    """No two objects share an instance or a series, and all are of the source's study and patient."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))[80:90]
    _, objects = objects_about(paths, PRESENT)
    written = [data_set(made) for made in objects.values()]
    source = dcmread(paths[0], stop_before_pixels=True)
    assert len({ds.SOPInstanceUID for ds in written}) == len({ds.SeriesInstanceUID for ds in written}) == len(written)
    assert len({ds.SeriesNumber for ds in written}) == len(written)
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber"):
        assert {str(ds.get(keyword)) for ds in written} == {str(source.get(keyword))}, keyword


def test_what_dciodvfy_finds_missing_the_gate_finds_missing(tmp_path: Path, test_data: Path) -> None:
    """Take away any attribute of an object, at any depth: where dciodvfy calls that an error, the gate holds it."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))[84:87]
    _, objects = objects_about(paths, PRESENT)
    missed, tried = [], 0
    for made in objects.values():
        for path in attribute_paths(data_set(made)):
            content = without(made, path)
            if path[-1] in ("SOPClassUID", "PixelData", "FloatPixelData") or faults_of(content):
                continue
            file = tmp_path / "one.dcm"
            file.write_bytes(content)
            tried += 1
            if dciodvfy(file).errors:
                missed.append((made.kind, path))
    assert not missed
    assert tried > 50


def attribute_paths(ds: Dataset, above: tuple[str | int, ...] = (), depth: int = 4) -> Iterator[tuple[str | int, ...]]:
    """Every attribute of the object, in the first item of each sequence."""
    for element in ds:
        yield (*above, element.keyword)
        if element.VR == "SQ" and element.value and depth:
            yield from attribute_paths(element.value[0], (*above, element.keyword, 0), depth - 1)


def without(made: DicomObject, path: tuple[str | int, ...]) -> bytes:
    """The object without the attribute at this path."""
    ds = item = data_set(made)
    for step in path[:-1]:
        item = item[step].value if isinstance(step, str) else item[step]
    del item[path[-1]]
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()
