"""A report in another SR class: what a class holds, what is made of a report, and what is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from fhir_records.errors import RenderingError
from fhir_records.model import Act, EarlierResult, ResultStatus
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.conformance.relationships import relation_faults
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.renderings.kinds import SR_CLASSES
from fhir_records.renderings.sr_classes import Reference, holds, in_class, predecessor_uids, variant_of
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, PRESENT, REFUSAL, header, report_of, signature

COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED = SR_CLASSES
INSTALLATION = report_of([header()], PRESENT).installation


def rendered(said: object = PRESENT) -> bytes:
    """A report as it is rendered."""
    return render_sr(report_of([header(1), header(2)], said), [header(1), header(2)]).content  # type: ignore[arg-type]


def signed() -> bytes:
    """A signed report with two predecessors, in a series each."""
    evidence = [header()]
    report = report_of(evidence, PRESENT)
    result = replace(report.result, version=2, status=ResultStatus.FINAL, signature=signature(Act.ACCEPT))
    earlier = [EarlierResult(report.read, 1, f"2.25.7{n}", f"2.25.8{n}", COMPREHENSIVE_3D) for n in (1, 2)]
    return render_sr(replace(report, result=result, replaces=tuple(earlier)), evidence).content


def item(value_type: str, relationship: str, *children: Dataset) -> Dataset:
    """A content item without more than its place in the tree."""
    ds = Dataset()
    ds.ValueType, ds.RelationshipType = value_type, relationship
    if children:
        ds.ContentSequence = list(children)
    return ds


def tree(*children: Dataset) -> Dataset:
    """A document's root."""
    root = Dataset()
    root.ValueType, root.ContentSequence = "CONTAINER", list(children)
    return root


def by_reference() -> Dataset:
    """A relationship to an item that stands elsewhere."""
    ds = Dataset()
    ds.RelationshipType, ds.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 2]
    return ds


HELD: list[tuple[str, Callable[[], Dataset], set[str]]] = [
    ("what we write", lambda: dcmread(io.BytesIO(rendered())), set(SR_CLASSES)),
    ("a point in the patient", lambda: tree(item("SCOORD3D", "CONTAINS")), {COMPREHENSIVE_3D}),
    (
        "a time range of a point in the patient",
        lambda: tree(item("TCOORD", "CONTAINS", item("SCOORD3D", "SELECTED FROM"))),
        {COMPREHENSIVE_3D},
    ),
    (
        "a measurement inferred from a point in the patient",
        lambda: tree(item("NUM", "CONTAINS", item("SCOORD3D", "INFERRED FROM"))),
        {COMPREHENSIVE_3D},
    ),
    (
        "an outline on an image",
        lambda: tree(item("SCOORD", "CONTAINS", item("IMAGE", "SELECTED FROM"))),
        set(SR_CLASSES),
    ),
    ("a reference", lambda: tree(item("NUM", "CONTAINS", by_reference())), {COMPREHENSIVE_3D, COMPREHENSIVE}),
    (
        "the observer of one finding",
        lambda: tree(item("CODE", "CONTAINS", item("PNAME", "HAS OBS CONTEXT"))),
        {COMPREHENSIVE_3D, COMPREHENSIVE},
    ),
    (
        "properties in a container",
        lambda: tree(item("NUM", "CONTAINS", item("CONTAINER", "HAS PROPERTIES"))),
        {COMPREHENSIVE_3D, COMPREHENSIVE},
    ),
    ("a table", lambda: tree(item("TABLE", "CONTAINS")), set()),
    ("a container that is a modifier", lambda: tree(item("CONTAINER", "HAS CONCEPT MOD")), set()),
]


@pytest.mark.parametrize(("make", "classes"), [entry[1:] for entry in HELD], ids=[entry[0] for entry in HELD])
def test_what_each_class_holds(make: Callable[[], Dataset], classes: set[str]) -> None:
    """By reference not in Enhanced SR, coordinates in the patient in Comprehensive 3D SR alone, and so on."""
    assert {uid for uid in SR_CLASSES if not any(relation_faults(make(), uid))} == classes


def with_a_point_in_the_patient() -> bytes:
    """A report of ours that has an outline in patient coordinates."""
    ds = dcmread(io.BytesIO(rendered()))
    point = item("SCOORD3D", "CONTAINS")
    point.GraphicType, point.GraphicData = "POINT", [1.0, 2.0, 3.0]
    ds.ContentSequence.append(point)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_a_class_that_cannot_hold_the_content_is_not_made() -> None:
    """A point in the patient is not dropped to please an older archive."""
    content = with_a_point_in_the_patient()
    assert [uid for uid in SR_CLASSES if holds(content, uid)] == [COMPREHENSIVE_3D]
    for uid in (COMPREHENSIVE, ENHANCED):
        with pytest.raises(RenderingError, match="cannot hold"):
            in_class(INSTALLATION, content, uid, {})


@pytest.mark.parametrize("uid", [COMPREHENSIVE, ENHANCED])
@pytest.mark.parametrize("said", [PRESENT, ABSENT, REFUSAL], ids=["present", "absent", "refused"])
def test_only_what_names_the_object_differs(uid: str, said: object) -> None:
    """Every element but class and UIDs is there, byte for byte, and the gate lets it pass."""
    first = rendered(said)
    made = in_class(INSTALLATION, first, uid, {})
    before, after = dcmread(io.BytesIO(first)), dcmread(io.BytesIO(made.content))
    assert {one.keyword for one in after if one != before[one.tag]} == {
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
    }
    assert len(after) == len(before) and len(made.content) - len(first) in range(-4, 5)
    assert (after.SOPClassUID, after.SOPInstanceUID) == (made.sop_class_uid, made.sop_uid) == (uid, made.sop_uid)
    assert after.file_meta.MediaStorageSOPClassUID == uid
    assert after.file_meta.MediaStorageSOPInstanceUID == made.sop_uid
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert faults_of(made.content) == ()


def test_the_same_report_gives_the_same_bytes() -> None:
    """No clock and no chance, and no two classes under one UID."""
    content = rendered()
    made = [in_class(INSTALLATION, content, uid, {}) for uid in (COMPREHENSIVE, ENHANCED) for _ in range(2)]
    assert made[0] == made[1] and made[2] == made[3]
    objects = [dcmread(io.BytesIO(one)) for one in (content, made[0].content, made[2].content)]
    assert len({ds.SOPInstanceUID for ds in objects}) == len({ds.SeriesInstanceUID for ds in objects}) == 3


def test_another_character_set_stays() -> None:
    """Names in another script are the same bytes as in the report."""
    evidence = [header(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")]
    report = report_of(evidence, ABSENT)
    report = replace(report, installation=replace(report.installation, organization="Curie"))
    first = render_sr(report, evidence).content
    made = in_class(INSTALLATION, first, ENHANCED, {})
    before, after = dcmread(io.BytesIO(first)), dcmread(io.BytesIO(made.content))
    assert after.get_item("PatientName").value == before.get_item("PatientName").value  # type: ignore[union-attr]
    assert str(after.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_other_predecessors_are_named_in_their_series() -> None:
    """The one that was sent in another class stands with its class, UID and series; the other one stays."""
    content = signed()
    assert predecessor_uids(content) == ("2.25.81", "2.25.82")
    instead = {"2.25.82": Reference(ENHANCED, "2.25.92", "2.25.71")}
    made = in_class(INSTALLATION, content, COMPREHENSIVE_3D, instead)
    (study,) = dcmread(io.BytesIO(made.content)).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence  # both in one series now, which stands once
    assert series.SeriesInstanceUID == "2.25.71"
    named = [(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in series.ReferencedSOPSequence]
    assert named == [(COMPREHENSIVE_3D, "2.25.81"), (ENHANCED, "2.25.92")]
    assert faults_of(made.content) == ()


def test_each_set_of_predecessors_is_an_object_of_its_own() -> None:
    """Two archives that got different reports before never share a UID for what follows."""
    content = signed()
    others = [
        {"2.25.82": Reference(ENHANCED, "2.25.92", "2.25.71")},
        {"2.25.81": Reference(ENHANCED, "2.25.91", "2.25.7")},
    ]
    uids = {in_class(INSTALLATION, content, ENHANCED, instead).sop_uid for instead in ({}, *others)}
    assert len(uids) == 3
    assert variant_of(COMPREHENSIVE_3D, COMPREHENSIVE_3D, {}) == ""
    assert variant_of(COMPREHENSIVE_3D, ENHANCED, {}) == "enhanced"
    assert variant_of(COMPREHENSIVE_3D, ENHANCED, others[0]).startswith("enhanced after ")


def test_nothing_is_made_of_what_is_the_same_or_damaged() -> None:
    """The report itself is sent as it is; what cannot be read raises our own error."""
    with pytest.raises(RenderingError, match="already"):
        in_class(INSTALLATION, rendered(), COMPREHENSIVE_3D, {})
    for content in (b"", b"damaged"):
        with pytest.raises(RenderingError, match="cannot be read"):
            in_class(INSTALLATION, content, ENHANCED, {})
    cut = in_class(INSTALLATION, rendered()[:900], ENHANCED, {})
    assert faults_of(cut.content)  # what was cut off between two elements reads well, and the gate holds it
    with pytest.raises(RenderingError, match="cannot hold"):
        in_class(INSTALLATION, rendered(), "1.2.840.10008.5.1.4.1.1.88.11", {})


@pytest.mark.parametrize("uid", [COMPREHENSIVE, ENHANCED])
def test_the_gate_holds_what_a_class_cannot_hold(uid: str) -> None:
    """A fault names the place and the relationship."""
    ds = dcmread(io.BytesIO(in_class(INSTALLATION, rendered(), uid, {}).content))
    ds.ContentSequence.append(item("SCOORD3D", "CONTAINS"))
    buffer = io.BytesIO()
    ds.save_as(buffer)
    assert any("no CONTAINER CONTAINS a SCOORD3D" in fault for fault in faults_of(buffer.getvalue()))
