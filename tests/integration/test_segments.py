"""Segments that a model outlined: the Segmentation, the volumes in the report, and other readers' eyes on both."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_records.errors import RenderingError
from fhir_records.model import Code, ImageRef
from fhir_records.renderings import kinds
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.objects import render_objects
from fhir_records.renderings.segmentation import Segment, measured, render_seg
from tests.peers import dciodvfy, dsrdump
from tests.unit.fhir_records.renderings.sr_reports import PRESENT, header, ref, report_of

ABNORMAL = Code("SCT", "49755003", "Morphologically abnormal structure")
NEOPLASM = Code("SCT", "108369006", "Neoplasm")
EDEMA = Code("SCT", "79654002", "Edema")

Masks = Mapping[ImageRef, npt.NDArray[np.bool_]]


def slices(count: int = 12, gap: float = 2.0) -> list[Dataset]:
    """Headers of a stack without gaps between its slices, the last of them first."""
    return [
        header(
            number,
            Rows=64,
            Columns=48,
            PixelSpacing=[0.5, 0.75],
            SliceThickness=1.0,
            ImagePositionPatient=[0, 0, gap * number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
        for number in range(count, 0, -1)
    ]


def ball(evidence: list[Dataset], radius: float) -> Masks:
    """A ball of this radius in mm about the middle of the stack."""
    y, x = (np.mgrid[0:64, 0:48].T * [0.5, 0.75]).T
    middle = np.mean([float(ds.ImagePositionPatient[2]) for ds in evidence])
    return {
        ref(ds): (y - 16) ** 2 + (x - 18) ** 2 + (float(ds.ImagePositionPatient[2]) - middle) ** 2 < radius**2
        for ds in evidence
    }


def segment(masks: Masks, code: Code = NEOPLASM, number: int = 1) -> Segment:
    """A segment with these masks."""
    return Segment(f"segment {number}", code, ABNORMAL, f"brain_mr_tumour segment {number}", f"2.25.99{number}", masks)


def objects(evidence: list[Dataset], *segments: Segment) -> dict[str, DicomObject]:
    """Report and Segmentation of a result with these segments."""
    wanted = {kinds.SR, kinds.SEGMENTATION}
    made = list(render_objects(report_of(evidence, PRESENT), evidence, wanted, segments=segments))
    assert all(isinstance(one, DicomObject) for one in made), made
    return {one.kind: one for one in made if isinstance(one, DicomObject)}


def test_a_segmentation_and_its_report_conform(tmp_path: Path) -> None:
    """Two overlapping segments: no error, no warning, nothing for the gate to hold, and the same bytes again."""
    evidence = slices()
    found = [segment(ball(evidence, 6)), segment(ball(evidence, 9), EDEMA, 2)]
    made = objects(evidence, *found)
    assert set(made) == {kinds.SR, kinds.SEGMENTATION}
    for one in made.values():
        path = tmp_path / f"{one.kind}.dcm"
        path.write_bytes(one.content)
        errors, warnings = dciodvfy(path)
        assert not errors and not warnings, (one.kind, errors, warnings)
        assert faults_of(one.content) == ()
    assert made == objects(evidence, *found)
    dump = dsrdump(tmp_path / "dicom_sr.dcm")
    assert dump.count('"Referenced Segment"') == 2 and "cubic millimeter" in dump


def test_the_volume_is_that_of_the_voxels() -> None:
    """A ball's volume comes out within what its voxels allow, by the slices' distance and not their thickness."""
    evidence = slices(gap=2.0)
    (one,) = measured(report_of(evidence, PRESENT), evidence, [segment(ball(evidence, 8))])
    assert one.volume_mm3 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.03)
    voxels = sum(int(mask.sum()) for mask in ball(evidence, 8).values())
    assert one.volume_mm3 == pytest.approx(voxels * 0.5 * 0.75 * 2.0)


def test_highdicom_reads_the_masks_back(tmp_path: Path) -> None:
    """The masks and the volumes that went in come out of another library's readers."""
    evidence = slices()
    small, large = ball(evidence, 6), ball(evidence, 9)
    made = objects(evidence, segment(small), segment(large, EDEMA, 2))
    path = tmp_path / "seg.dcm"
    path.write_bytes(made[kinds.SEGMENTATION].content)
    seg = hd.seg.segread(path)
    assert [seg.get_segment_description(number).segment_label for number in (1, 2)] == ["Neoplasm", "Edema"]
    for number, masks in ((1, small), (2, large)):
        with_it = [ds.SOPInstanceUID for ds in evidence if masks[ref(ds)].any()]
        read = seg.get_pixels_by_source_instance(with_it, segment_numbers=[number])
        assert np.array_equal(
            read[..., 0].astype(bool), np.stack([masks[ref(ds)] for ds in evidence if masks[ref(ds)].any()])
        )
    content = hd.sr.srread(io.BytesIO(made[kinds.SR].content)).content
    groups = content.get_volumetric_roi_measurement_groups()
    volumes = [group.get_measurements()[0].value for group in groups]
    assert volumes == [
        round(one.volume_mm3, 1)
        for one in measured(report_of(evidence, PRESENT), evidence, [segment(small), segment(large)])
    ]
    assert {group.referenced_segment.referenced_sop_instance_uid for group in groups} == {seg.SOPInstanceUID}


def test_an_empty_mask_is_no_segment() -> None:
    """What was looked for and not found is not written, and the report refers to no Segmentation."""
    evidence = slices()
    empty = {ref(ds): np.zeros((64, 48), bool) for ds in evidence}
    made = objects(evidence, segment(empty))
    assert set(made) == {kinds.SR}
    assert b"121191" not in made[kinds.SR].content


def test_presence_is_still_said_once() -> None:
    """The groups about segments say no presence; the gate holds a report where one does."""
    evidence = slices()
    content = objects(evidence, segment(ball(evidence, 6)))[kinds.SR].content
    ds = dcmread(io.BytesIO(content))
    measurements = ds.ContentSequence[-1].ContentSequence
    measurements[1].ContentSequence.append(
        next(
            one
            for one in measurements[0].ContentSequence
            if one.get("ConceptCodeSequence") and one.ConceptCodeSequence[0].CodeValue == "52101004"
        )
    )
    buffer = io.BytesIO()
    ds.save_as(buffer)
    assert any("says whether a finding is present" in fault for fault in faults_of(buffer.getvalue()))


@pytest.mark.parametrize("change", [{"ImagePositionPatient": None}, {"Rows": 32}, {"PixelSpacing": [1, 1]}])
def test_masks_of_no_stack_are_an_error(change: dict[str, object]) -> None:
    """Where one image does not say that it lies with the others, nothing is measured."""
    evidence = slices()
    masks = ball(evidence, 6)
    for keyword, value in change.items():
        if value is None:
            delattr(evidence[3], keyword)
        else:
            setattr(evidence[3], keyword, value)
    with pytest.raises(RenderingError):
        render_seg(report_of(evidence, PRESENT), evidence, [segment(masks)])
