"""Segments that a model outlined: the Segmentation, the volumes in the report, and other readers' eyes on both."""

from __future__ import annotations

import io
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_listener.stored import open_stored
from fhir_records.errors import RenderingError
from fhir_records.model import Code, Finding, ImageRef, Installation
from fhir_records.renderings import kinds
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.objects import render_objects
from fhir_records.renderings.segment_masks import segments_of
from fhir_records.renderings.segmentation import Segment, measured, render_seg
from inference.answers import Classified
from inference.contract import parse_contract
from inference.reading import ImageFile, read_study
from inference.registry import RegisteredModel
from inference.suitability import HEADER_KEYWORDS
from tests.peers import dciodvfy, dsrdump
from tests.unit.fhir_records.renderings.sr_reports import PRESENT, header, ref, report_of
from tests.unit.inference.outlining_bundles import contract_text
from tests.unit.inference.volumes import Bright, Cut, Study, oblique
from tests.unit.inference.volumes import ball as sphere
from workflow.reading import finding_of, outlines_of

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


def outlined_by(files: list[ImageFile], high: float) -> Classified:
    """What a network of means outlines in these files: the part that is brighter than 0.45 of `high`."""
    contract = parse_contract(
        tomllib.loads(contract_text(spacing=(1.5, 1.5, 1.5), window=(64, 64, 64), high=high, minimum=5))
    )
    answer = read_study(contract, Bright(at=0.45), files, lambda path: open_stored(path, HEADER_KEYWORDS))
    assert isinstance(answer, Classified), answer
    return answer


def objects_of(answer: Classified, evidence: list[Dataset]) -> tuple[Finding, dict[str, DicomObject]]:
    """The finding that the answer becomes, and report and Segmentation of it."""
    outlines = outlines_of(answer)
    assert answer.outlines is not None and outlines is not None
    contract = parse_contract(tomllib.loads(contract_text()))
    model = RegisteredModel("bright_mass", "1.0.0", "Bright", "Us", "2.25.4", "ab" * 32, Path("/nowhere"), contract)
    finding = finding_of(answer, model, Installation(uuid.UUID(int=3), "For evaluation."), "2.25.10")
    report = report_of(evidence, finding, key_images=finding.key_images)
    segments = segments_of(finding, outlines)
    made = list(render_objects(report, evidence, {kinds.SR, kinds.SEGMENTATION}, segments=segments))
    return finding, {one.kind: one for one in made if isinstance(one, DicomObject)}


def assert_measured(
    made: Mapping[str, DicomObject], finding: Finding, folder: Path, known: tuple[str, ...] = ()
) -> hd.seg.Segmentation:
    """Both objects conform, and highdicom measures in the one what it reads in the other and the finding says."""
    assert set(made) == {kinds.SR, kinds.SEGMENTATION}
    for one in made.values():
        path = folder / f"{one.kind}.dcm"
        path.write_bytes(one.content)
        errors, warnings = dciodvfy(path)
        assert not errors and not set(warnings) - set(known), (one.kind, errors, warnings)
        assert faults_of(one.content) == ()
    seg = hd.seg.segread(folder / f"{kinds.SEGMENTATION}.dcm")
    volume = seg.get_volume(segment_numbers=[1])
    (said,) = finding.segments
    assert volume.array.astype(bool).sum() * volume.voxel_volume == pytest.approx(said.volume_mm3, rel=1e-4)
    (group,) = hd.sr.srread(folder / f"{kinds.SR}.dcm").content.get_volumetric_roi_measurement_groups()
    assert float(group.get_measurements()[0].value) == said.volume_mm3
    return seg


def test_a_real_series_is_outlined_and_written(tmp_path: Path, test_data: Path) -> None:
    """Sagittal slices of a real scanner, outlined and written; highdicom measures the same volume."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))
    evidence = [dcmread(path, stop_before_pixels=True) for path in paths]
    files = [
        ImageFile(str(path), ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID)
        for path, ds in zip(paths, evidence, strict=True)
    ]
    answer = outlined_by(files, high=700)
    finding, made = objects_of(answer, evidence)
    assert 1e6 < finding.segments[0].volume_mm3 < 6e6  # most of a head is brighter than that
    seg = assert_measured(made, finding, tmp_path, dciodvfy(paths[0]).warnings)
    assert seg.NumberOfFrames == len({frame.place for frame in answer.outlines.segments[0].frames})  # type: ignore[union-attr]


def test_frames_of_an_enhanced_object_are_outlined_and_written(tmp_path: Path) -> None:
    """The Segmentation of a multi-frame source names its frames, and conforms."""
    cut = Cut(sphere((3.0, -4.0, 2.0), 13.0), directions=oblique())
    place, pixels = cut.enhanced()
    source = header(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", NumberOfFrames=cut.count, PixelSpacing=None)
    source.update(place)
    study = Study()
    study.add(source, pixels)
    sop_class, sop_uid, series_uid = source.SOPClassUID, source.SOPInstanceUID, source.SeriesInstanceUID
    study.files = [ImageFile("1.dcm", series_uid, sop_uid, sop_class)]
    answer = study.read(parse_contract(tomllib.loads(contract_text())), Bright())
    assert isinstance(answer, Classified)
    finding, made = objects_of(answer, [source])
    seg = assert_measured(made, finding, tmp_path)
    named = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in seg.PerFrameFunctionalGroupsSequence
    }
    assert answer.outlines is not None
    assert named == {frame.place + 1 for frame in answer.outlines.segments[0].frames}
    assert finding.segments[0].volume_mm3 / 1000 == pytest.approx(4 / 3 * np.pi * 13**3 / 1000, rel=0.08)
