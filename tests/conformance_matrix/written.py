"""Every object that a result about a source is written as, in every state that a result can be in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from fhir_records.model import (
    Act,
    Code,
    EarlierResult,
    ImageRef,
    Region,
    Report,
    ResultStatus,
    Withdrawal,
)
from fhir_records.renderings import kinds
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.frame_place import geometry_of
from fhir_records.renderings.kinds import KIND_OF_WORD, SR_CLASS_OF_WORD
from fhir_records.renderings.objects import render_objects
from fhir_records.renderings.rejection_note import note_title, render_rejection_note
from fhir_records.renderings.segmentation import Segment
from fhir_records.renderings.sr_classes import in_class
from tests.conformance_matrix.sources import Source
from tests.integration.object_sources import blob, frame_ref, picture_of
from tests.unit.fhir_records.renderings.sr_reports import (
    ABSENT,
    NEOPLASM,
    NOW,
    PRESENT,
    REFUSAL,
    report_of,
    signature,
)

NOTE = "rejection_note"
# The report as it goes to destinations that do not take the class it was written in.
OTHER_CLASSES = {"dicom_sr_comprehensive": "comprehensive", "dicom_sr_enhanced": "enhanced"}
STATES = ("absent", "present", "outlined", "refused", "accepted", "corrected", "marked")
_ABNORMAL = Code("SCT", "49755003", "Morphologically abnormal structure")
_EDEMA = Code("SCT", "79654002", "Edema")
# By kind of the object that is taken back: how the note is titled at its destination, and why it is taken back.
_TAKEN_BACK = {
    kinds.SR: ("113037", Withdrawal.REJECTED),
    kinds.SECONDARY_CAPTURE: ("113001", Withdrawal.SUPERSEDED),
    kinds.KEY_OBJECTS: ("113037", Withdrawal.WRONG_PATIENT),
    kinds.PARAMETRIC_MAP: ("113001", Withdrawal.REJECTED),
    kinds.SEGMENTATION: ("113037", Withdrawal.SUPERSEDED),
    kinds.ENCAPSULATED_PDF: ("113037", Withdrawal.REJECTED),
}


@dataclass(frozen=True, slots=True)
class Written:
    """One object, and what it is."""

    kind: str
    state: str
    content: bytes


def states_of(number: int, count: int) -> tuple[str, ...]:
    """So many states of a result for the source of this number: each source goes on where the one before it stopped."""
    return tuple(STATES[(number * count + one) % len(STATES)] for one in range(min(count, len(STATES))))


def written(source: Source, states: tuple[str, ...] = STATES) -> Iterator[Written]:
    """Every object about the source.

    Raises:
        AssertionError: an object did not come out.
    """
    evidence = source.evidence()
    for state in states:
        report, segments = _report(evidence, state)
        if state == "outlined" and not segments:
            continue  # an image that does not say where it lies has nothing outlined in it
        objects = _objects(source, evidence, report, segments)
        for made in objects:
            yield Written(made.kind, state, made.content)
        for kind, word in OTHER_CLASSES.items():
            other = in_class(report.installation, objects[0].content, SR_CLASS_OF_WORD[word], {})
            yield Written(kind, state, other.content)
        if state in ("present", "outlined", "accepted"):
            yield from _notes(report, objects, state)


def _objects(source: Source, evidence: list[Dataset], report: Report, segments: list[Segment]) -> list[DicomObject]:
    finding = report.result.finding
    keys = dict.fromkeys(finding.key_images) if finding else {}
    maps = [blob(image, finding.label) for image in keys] if finding and finding.author is None else []
    picture = None
    if keys:
        first = next(iter(keys))
        by_uid = dict(zip((ds.SOPInstanceUID for ds in evidence), source.paths, strict=True))
        shown = evidence[list(by_uid).index(first.sop_uid)]
        picture = picture_of(by_uid[first.sop_uid], shown, first, maps[0] if maps else None)
    made = list(
        render_objects(
            report,
            evidence,
            set(KIND_OF_WORD.values()),
            maps=maps,
            picture=picture,
            segments=segments,
            signer="Dr Marie Curie" if report.result.is_signed else "",
        )
    )
    objects = [one for one in made if isinstance(one, DicomObject)]
    assert len(objects) == len(made), (source.name, made)
    return objects


def _report(evidence: list[Dataset], state: str) -> tuple[Report, list[Segment]]:
    keys = [frame_ref(evidence[-1], 2), frame_ref(evidence[0], 1)]
    if state == "refused":
        return report_of(evidence, REFUSAL), []
    said = ABSENT if state == "absent" else PRESENT
    report = report_of(evidence, said, key_images=keys)
    if state in ("absent", "present"):
        return report, []
    if state == "outlined":
        return report, list(_segments(evidence))
    return _signed(report, state), []


def _signed(report: Report, state: str) -> Report:
    """The report as a person has made it; corrected and marked are a person's own finding."""
    act = Act.ACCEPT if state == "accepted" else Act.CORRECT
    made = signature(act, note="Seen.", machine_said="Glioma: present")
    finding = report.result.finding
    assert finding is not None
    if act is Act.CORRECT:
        region = Region(finding.key_images[0], 1, 1, 5, 4.5) if state == "marked" else None
        finding = replace(finding, probability=None, alternatives=(), limits=(), author=made.signer, region=region)
    result = replace(report.result, version=2, status=ResultStatus.FINAL, finding=finding, signature=made)
    earlier = EarlierResult(report.read, 1, "2.25.71", "2.25.72", Comprehensive3DSRStorage)
    return replace(report, result=result, replaces=(earlier,))


def _segments(evidence: list[Dataset]) -> Iterator[Segment]:
    """Two overlapping balls about the middle of the first stack, where the images say where they lie."""
    placed = [frame for ds in evidence[:24] for image in _frames(ds) if (frame := geometry_of(ds, image)) is not None]
    stack = [one for one in placed if _plane(one) == _plane(placed[0])]
    for number, (code, share) in enumerate(((NEOPLASM, 0.2), (_EDEMA, 0.3)), start=1):
        masks = {}
        for frame in stack:
            y, x = np.mgrid[0 : 1 : frame.rows * 1j, 0 : 1 : frame.columns * 1j]
            masks[frame.image] = (y - 0.5) ** 2 + (x - 0.45) ** 2 < share**2
        if masks:
            yield Segment(
                f"part {number}", code, _ABNORMAL, f"brain_mr_tumour part {number}", f"2.25.99{number}", masks
            )


def _frames(ds: Dataset) -> list[ImageRef]:
    count = int(ds.get("NumberOfFrames") or 1)
    return [frame_ref(ds, number) for number in range(1, min(count, 6) + 1)]


def _plane(frame: object) -> tuple[object, ...]:
    return tuple(
        getattr(frame, name) for name in ("frame_of_reference_uid", "orientation", "spacing", "rows", "columns")
    )


def _notes(report: Report, objects: list[DicomObject], state: str) -> Iterator[Written]:
    for made in objects:
        code, why = _TAKEN_BACK[made.kind]
        title = note_title(code, "111220", why)
        note = render_rejection_note(report.installation, report.study, made.content, title, why, NOW)
        yield Written(NOTE, f"of {made.kind}, {why.value}", note.content)
