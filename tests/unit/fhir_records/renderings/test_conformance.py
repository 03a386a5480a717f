"""The conformance gate: it lets pass what is right, and names what is wrong without repeating a value."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from copy import deepcopy

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_records.renderings import kinds
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.conformance.content_tree import concept_of
from fhir_records.renderings.conformance.iod import written_classes
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.objects import render_objects
from tests import iod_tables
from tests.conformance_matrix.written import Written
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, PRESENT, REFUSAL, header, ref, report_of

Change = Callable[[Dataset], object]


def objects(said: object = PRESENT) -> dict[str, DicomObject]:
    """The objects of a report about two faultless headers."""
    evidence = [header(1), header(2)]
    made = render_objects(report_of(evidence, said), evidence, set(kinds.KIND_OF_WORD.values()))  # type: ignore[arg-type]
    return {one.kind: one for one in made if isinstance(one, DicomObject)}


def changed(made: DicomObject | Written, change: Change) -> bytes:
    """The object after a change, as a file."""
    ds = dcmread(io.BytesIO(made.content))
    change(ds)
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def item(ds: Dataset, code: str) -> Dataset:
    """The first content item with this concept, at any depth."""
    return next(one for one in items(ds) if concept_of(one) in (("DCM", code), ("SCT", code)))


def items(ds: Dataset) -> list[Dataset]:
    """Every content item, depth first."""
    return [one for child in ds.get("ContentSequence") or () for one in (child, *items(child))]


def unit(measured: Dataset) -> Dataset:
    """The unit of a measurement."""
    return measured.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]


def image(ds: Dataset) -> Dataset:
    """What the first key image refers to."""
    return item(ds, "121112").ReferencedSOPSequence[0]


def evidence(ds: Dataset) -> Dataset:
    """The study whose images are listed as evidence."""
    return ds.CurrentRequestedProcedureEvidenceSequence[0]


def drop(code: str) -> Change:
    """Take out the first content item with this concept."""

    def change(ds: Dataset) -> None:
        for parent in (ds, *items(ds)):
            children = list(parent.get("ContentSequence") or ())
            for child in children:
                if concept_of(child) in (("DCM", code), ("SCT", code)):
                    children.remove(child)
                    parent.ContentSequence = children
                    return
        raise AssertionError(code)

    return change


def put_in(keyword: str, value: object) -> Change:
    """Give the object this value."""
    return lambda ds: setattr(ds, keyword, value)


@pytest.mark.parametrize("said", [PRESENT, ABSENT, REFUSAL], ids=["present", "absent", "refused"])
def test_what_we_write_passes(said: object) -> None:
    """Every kind of object about every kind of answer passes."""
    assert {kind: faults_of(made.content) for kind, made in objects(said).items() if faults_of(made.content)} == {}


@pytest.mark.parametrize("kind", [kinds.SR, kinds.SECONDARY_CAPTURE, kinds.KEY_OBJECTS])
def test_whatever_must_be_there(kind: str) -> None:
    """Every attribute of type 1 or 2 is missed when it is taken away, and one of type 1 when it is emptied."""
    made = objects()[kind]
    tables = iod_tables.tables()
    shape = tables["shapes"][tables["iods"][made.sop_class_uid]["shape"]]
    for keyword, entry in shape.items():
        required = entry[0] if isinstance(entry, list) else entry
        if keyword == "SOPClassUID":
            continue  # without it nobody knows what must be there: a test of its own
        if required in ("1", "2"):
            assert f"{keyword} is missing; its type is {required}." in faults_of(
                changed(made, lambda ds, keyword=keyword: delattr(ds, keyword))  # type: ignore[misc]
            )
        if required == "1":
            empty: object = [] if isinstance(entry, list) else None
            found = faults_of(changed(made, put_in(keyword, empty)))
            assert any(fault.startswith(keyword) for fault in found), keyword


OF_A_REPORT: list[tuple[Change, str]] = [
        (put_in("CompletionFlag", "DONE"), "CompletionFlag has a value that is not allowed"),
        (put_in("CompletionFlag", "PARTIAL"), "CompletionFlag is not COMPLETE"),
        (put_in("VerificationFlag", "VERIFIED"), "VerifyingObserverSequence is missing; its type is 1C"),
        (put_in("PreliminaryFlag", "FINAL"), "FINAL in a document that nobody has signed"),
        (put_in("Modality", "MR"), "Modality is not SR"),
        (put_in("Rows", 5), "Rows is not an attribute of this place"),
        (put_in("PatientIdentityRemoved", "YES"), "DeidentificationMethod is missing"),
        (put_in("SeriesDescription", "x" * 65), "SeriesDescription has not the form of its value representation LO"),
        (put_in("ContentDate", "2026-01-01"), "ContentDate has not the form of its value representation DA"),
        (put_in("CurrentRequestedProcedureEvidenceSequence", []), "CurrentRequestedProcedureEvidenceSequence is empty"),
        (lambda ds: ds.ContentTemplateSequence[0].__setattr__("TemplateIdentifier", "2000"), "does not name TID 1500"),
        (lambda ds: ds.ConceptNameCodeSequence[0].__setattr__("CodeValue", "126001"), "the document's title"),
        (drop("121049"), "TID 1204, Language of Content Item: there are 0 of at least 1"),
        (drop("121005"), "TID 1002, Observer Type: there are 0 of at least 1"),
        (drop("121012"), "AIR: the device observer has no Device Observer UID"),
        (drop("121058"), "TID 1500, Procedure Reported: there are 0 of at least 1"),
        (drop("126010"), "None of these is there: TID 1500, Imaging Measurements"),
        (drop("126200"), "TID 1600, Image Library Group: there are 0 of at least 1"),
        (drop("112039"), "TID 4108, Tracking Identifier: there are 0 of at least 1"),
        (drop("112040"), "TID 4108, Tracking Unique Identifier: there are 0 of at least 1"),
        (drop("121071"), "TID 1501, Finding: there are 0 of at least 1"),
        (drop("363698007"), "AIR: a measurement group has no finding site"),
        (drop("111001"), "algorithm's name"),
        (drop("111003"), "algorithm's version"),
        (drop("393564001"), "exactly once whether its finding is present"),
        (lambda ds: item(ds, "122157").MeasuredValueSequence.clear(), "of type NUM has no MeasuredValueSequence"),
        (lambda ds: item(ds, "121013").__setattr__("ValueType", "CODE"), "fits no row of its template"),
        (lambda ds: item(ds, "121106").__setattr__("RelationshipType", "HAS OBS CONTEXT"), "fits no row"),
        (lambda ds: item(ds, "121106").__setattr__("TextValue", ""), "of type TEXT has no TextValue"),
        (lambda ds: item(ds, "393564001").ConceptNameCodeSequence[0].__setattr__("CodeValue", "1"), "another question"),
        (lambda ds: unit(item(ds, "110910")).__setattr__("CodeValue", "mm"), "in a unit"),
        (lambda ds: image(ds).__setattr__("ReferencedSOPInstanceUID", "2.25.5"), "referred to"),
        (lambda ds: evidence(ds).__setattr__("StudyInstanceUID", "2.25.6"), "another study"),
        (lambda ds: ds.add_new(0x00091001, "LO", "x"), "is a private attribute"),
        (lambda ds: ds.file_meta.__setattr__("MediaStorageSOPInstanceUID", "2.25.7"), "MediaStorageSOPInstanceUID"),
    ]  # fmt: skip


@pytest.mark.parametrize(("change", "fault"), OF_A_REPORT)
def test_faults_of_a_report(change: Change, fault: str) -> None:
    """Whatever is wrong with a structured report is named."""
    found = faults_of(changed(objects()[kinds.SR], change))
    assert any(fault in one for one in found), found


OF_OTHERS: list[tuple[str, Change, str]] = [
        (kinds.SECONDARY_CAPTURE, put_in("PixelData", bytes(10)), "PixelData has not the length"),
        (kinds.SECONDARY_CAPTURE, put_in("HighBit", 6), "HighBit"),
        (kinds.SECONDARY_CAPTURE, lambda ds: delattr(ds, "PixelData"), "PixelData is missing"),
        (kinds.SECONDARY_CAPTURE, lambda ds: delattr(ds, "PlanarConfiguration"), "PlanarConfiguration is missing"),
        (kinds.SECONDARY_CAPTURE, lambda ds: delattr(ds, "BodyPartExamined"), "Laterality is missing; its type is 2C"),
        (kinds.SECONDARY_CAPTURE, put_in("BurnedInAnnotation", "MAYBE"), "BurnedInAnnotation has a value"),
        (kinds.KEY_OBJECTS, lambda ds: ds.ConceptNameCodeSequence[0].__setattr__("CodeValue", "113099"), "title"),
        (kinds.KEY_OBJECTS, drop("260753009"), "TID 2010, key object: there are 0 of at least 1"),
    ]  # fmt: skip
BROKEN = [*((kinds.SR, change, fault) for change, fault in OF_A_REPORT), *OF_OTHERS]


@pytest.mark.parametrize(("kind", "change", "fault"), OF_OTHERS)
def test_faults_of_other_objects(kind: str, change: Change, fault: str) -> None:
    """Whatever is wrong with a page or a selection of key objects is named."""
    found = faults_of(changed(objects()[kind], change))
    assert any(fault in one for one in found), found


def test_what_a_person_says_needs_no_algorithm() -> None:
    """A group whose observer is a named person passes without an algorithm; without the name it does not."""

    def by_person(ds: Dataset) -> None:
        group = next(one for one in items(ds) if concept_of(one) == ("DCM", "125007"))
        drop("111001")(ds)
        drop("111003")(ds)
        drop("122405")(ds)
        observer = deepcopy(item(ds, "121005"))
        observer.ConceptCodeSequence[0].CodeValue = "121006"
        name = deepcopy(observer)
        name.ValueType, name.PersonName = "PNAME", "Curie^Marie"
        name.ConceptNameCodeSequence[0].CodeValue = "121008"
        del name.ConceptCodeSequence
        group.ContentSequence = [observer, name, *group.ContentSequence]

    def nobody(ds: Dataset) -> None:
        by_person(ds)
        drop("121008")(ds)

    made = objects()[kinds.SR]
    assert faults_of(changed(made, by_person)) == ()
    assert "AIR: the person observer of a measurement group has no name." in faults_of(changed(made, nobody))


def test_a_signature_is_whole() -> None:
    """A verified document names who verified it, of which organization, and when."""

    def signed(ds: Dataset) -> None:
        observer = Dataset()
        observer.VerifyingObserverName, observer.VerifyingOrganization = "Curie^Marie", "Hospital"
        observer.VerificationDateTime, observer.VerifyingObserverIdentificationCodeSequence = "20260304050607", []
        ds.VerificationFlag, ds.VerifyingObserverSequence = "VERIFIED", [observer]

    def without_organization(ds: Dataset) -> None:
        signed(ds)
        ds.VerifyingObserverSequence[0].VerifyingOrganization = ""

    made = objects()[kinds.SR]
    assert faults_of(changed(made, signed)) == ()
    assert "A verifying observer has no VerifyingOrganization." in faults_of(changed(made, without_organization))


def test_no_class_that_we_do_not_write() -> None:
    """An object of any other class is held, and so are bytes that are no object."""
    content = changed(objects()[kinds.SR], put_in("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"))
    assert "SOPClassUID is not of a class that Wetread writes." in faults_of(content)
    assert faults_of(b"nothing") == ("The object cannot be read back: InvalidDicomError.",)


def test_faults_name_no_value() -> None:
    """A fault tells the attribute and the rule; the patient's data stay where they are."""
    made = objects()[kinds.SR]
    change = put_in("SeriesDescription", "Curie^Marie " * 10)
    assert not any("Curie" in fault for fault in faults_of(changed(made, change)))


def test_what_the_source_says_of_the_patient_is_passed_on() -> None:
    """A Patient ID that is longer than its representation allows is the source's, and does not hold the result."""
    evidence = [header(1, PatientID="P" * 70)]
    (made, *_) = render_objects(report_of(evidence, ABSENT), evidence, {kinds.SR})
    assert isinstance(made, DicomObject)
    assert faults_of(made.content) == ()


def test_a_name_in_another_script_needs_its_character_set() -> None:
    """Text beyond ASCII without Specific Character Set is held."""
    evidence = [header(1, PatientName="Möller^Ægir", SpecificCharacterSet="ISO_IR 100")]
    (made, *_) = render_objects(report_of(evidence, ABSENT), evidence, {kinds.SR})
    assert isinstance(made, DicomObject)
    assert faults_of(made.content) == ()
    content = made.content.replace(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", b"")
    assert any("SpecificCharacterSet" in fault or "read back" in fault for fault in faults_of(content))


def test_the_tables_are_those_of_the_standard() -> None:
    """The committed tables are what `python -m tests.iod_tables` makes, and are of every class that we write."""
    assert iod_tables.PATH.read_text(encoding="utf-8") == iod_tables.text()
    assert written_classes() == set(iod_tables.WRITTEN) == set(json.loads(iod_tables.text())["iods"])


def test_references_to_frames_pass() -> None:
    """A key frame of a multi-frame image passes."""
    evidence = [header(1, NumberOfFrames=10)]
    report = report_of(evidence, PRESENT, images_read=[ref(evidence[0], 3)], key_images=[ref(evidence[0], 3)])
    for made in render_objects(report, evidence, {kinds.SR, kinds.KEY_OBJECTS}):
        assert isinstance(made, DicomObject)
        assert faults_of(made.content) == ()
