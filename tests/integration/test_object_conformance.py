"""What the conformance matrix does not ask of our objects: where they lie, what they claim, what the gate lets by."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from fhir_records.renderings import kinds
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.result_page import KeyPicture
from tests.integration.object_sources import data_set, objects_about, rendered
from tests.peers import dciodvfy
from tests.unit.fhir_records.renderings.broken_objects import attributes, changed, parsed, whole_objects
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, PRESENT, header, ref, report_of

EVERY = 8  # attribute of an object is taken away


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


@pytest.mark.parametrize("gone", [True, False], ids=["missing", "empty"])
def test_what_dciodvfy_finds_missing_the_gate_finds_missing(tmp_path: Path, gone: bool) -> None:
    """Take any attribute of an object away, at any depth, or empty it: what dciodvfy calls an error, the gate holds."""
    missed, asked = [], 0
    for one in whole_objects(tmp_path):
        base = parsed(one.content)
        ways = [way for way, element in attributes(base) if gone or not element.is_empty]
        for way in ways[EVERY // 2 :: EVERY]:
            content = changed(base, way, gone=gone)
            if way[-1] in ("SOPClassUID", "PixelData", "FloatPixelData") or faults_of(content):
                continue
            path = tmp_path / "one.dcm"
            path.write_bytes(content)
            asked += 1
            if dciodvfy(path).errors:
                missed.append((one.kind, one.state, way))
    assert missed == []
    assert asked > 5
