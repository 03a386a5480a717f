"""The SR rendering: the same bytes for ever, the template's tree, and nothing of the source's faults."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom.sr as hd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import Comprehensive3DSRStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from fhir_records.errors import RenderingError
from fhir_records.identities import name_uid
from fhir_records.model import Code, Finding, Refusal, Report, ResultStatus
from fhir_records.renderings import plain_words
from fhir_records.renderings.dicom_file import IMPLEMENTATION_CLASS_UID
from fhir_records.renderings.dicom_sr import document_uid, render_sr
from tests.unit.fhir_records.renderings.sr_reports import (
    ABSENT,
    ALGORITHM,
    NOW,
    PRESENT,
    REFUSAL,
    STATEMENT,
    header,
    ref,
    report_of,
)

JAPANESE = ["", "ISO 2022 IR 87"]


def rendered(evidence: Sequence[Dataset], said: Finding | Refusal = ABSENT, report: Report | None = None) -> Dataset:
    """The document, read back by pydicom."""
    return dcmread(io.BytesIO(render_sr(report or report_of(evidence, said), evidence).content))


def name(item: Dataset) -> str:
    """The concept name of a content item, as scheme and code."""
    code = item.ConceptNameCodeSequence[0]
    return f"{code.CodingSchemeDesignator} {code.CodeValue}"


def value(item: Dataset) -> str:
    """The value of a content item as text; of an image, its UID and frames."""
    kind = item.ValueType
    if kind == "CODE":
        return str(item.ConceptCodeSequence[0].CodeValue)
    if kind == "NUM":
        measured = item.MeasuredValueSequence[0]
        return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
    if kind == "IMAGE":
        reference = item.ReferencedSOPSequence[0]
        return f"{reference.ReferencedSOPInstanceUID} {reference.get('ReferencedFrameNumber', '')}".strip()
    return str(item.get({"TEXT": "TextValue", "UIDREF": "UID"}.get(kind, ""), ""))


def rows(parent: Dataset) -> list[tuple[str, str, str, str]]:
    """The children of a content item: relationship, value type, concept name and value, as the templates list them."""
    return [(item.RelationshipType, item.ValueType, name(item), value(item)) for item in parent.ContentSequence]


def child(parent: Dataset, concept: str) -> Dataset:
    """The one child of this concept name."""
    (found,) = [item for item in parent.ContentSequence if name(item) == concept]
    return found


def group_of(ds: Dataset) -> Dataset:
    """The measurement group."""
    return child(child(ds, "DCM 126010"), "DCM 125007")


def comments(ds: Dataset) -> list[str]:
    """The sentences of the measurement group."""
    return [text for _, _, concept, text in rows(group_of(ds)) if concept == "DCM 121106"]


def test_same_bytes_in_another_process() -> None:
    """Rendering twice in two processes, at two times, gives the very same bytes."""
    script = """
        import hashlib
        from fhir_records.renderings.dicom_sr import render_sr
        from tests.unit.fhir_records.renderings.sr_reports import ABSENT, header, report_of
        evidence = [header(number) for number in range(1, 4)]
        print(hashlib.sha256(render_sr(report_of(evidence, ABSENT), evidence).content).hexdigest())
    """
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "TZ": zone},
            cwd=Path(__file__).parents[4],
        ).stdout
        for seed, zone in (("1", "Asia/Kolkata"), ("2", "America/Lima"))
    }
    assert len(outputs) == 1


def test_document_level_attributes() -> None:
    """Same study, a series of its own, complete, unverified, preliminary, and dated by the result."""
    evidence = [header(1), header(2)]
    ds = rendered(evidence)
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert ds.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == Comprehensive3DSRStorage
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert (ds.StudyInstanceUID, ds.PatientID, ds.PatientName) == ("2.25.10", "P1", "Curie^Marie")
    assert ds.SeriesInstanceUID != evidence[0].SeriesInstanceUID
    assert (ds.Modality, ds.SeriesNumber, ds.InstanceNumber) == ("SR", 9001, 1)
    assert (ds.ContentDate, ds.ContentTime) == ("20260304", "050607.080000")
    assert ds.SeriesDescription == "Wetread AI read: no neoplasm of the brain (preliminary)"
    equipment = ds.ContributingEquipmentSequence[0]
    assert equipment.DeviceUID == ds.DeviceUID == ALGORITHM.device_uid
    assert equipment.ManufacturerModelName == ALGORITHM.name
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    references = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in references] == [header.SOPInstanceUID for header in evidence]


def test_uids_are_named_by_what_the_document_is_about() -> None:
    """UIDs change with revision, version, model version and variant, and with no database id."""
    report = report_of([header()], ABSENT)
    result = report.result
    others = [
        replace(report, read=replace(report.read, revision=2)),
        replace(report, result=replace(result, version=2)),
        replace(report, result=replace(result, algorithm=replace(result.algorithm, version="2"))),
        replace(report, destination="old-pacs"),
    ]
    assert len({document_uid(one, part) for one in (report, *others) for part in ("instance", "series")}) == 10
    renumbered = replace(report, result=replace(result, id=99, read_id=98), read=replace(report.read, id=98))
    assert document_uid(renumbered, "instance") == document_uid(report, "instance")


def test_root_follows_tid_1500() -> None:
    """Root: language (1204), observer (1001, 1002, 1004), procedure, image library (1600), measurements, in order."""
    ds = rendered([header()])
    assert name(ds) == "DCM 126000"
    template = ds.ContentTemplateSequence[0]
    assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "1500")
    assert rows(ds) == [
        ("HAS CONCEPT MOD", "CODE", "DCM 121049", "en-US"),
        ("HAS OBS CONTEXT", "CODE", "DCM 121005", "121007"),
        ("HAS OBS CONTEXT", "UIDREF", "DCM 121012", ALGORITHM.device_uid),
        ("HAS OBS CONTEXT", "TEXT", "DCM 121013", ALGORITHM.title),
        ("HAS OBS CONTEXT", "TEXT", "DCM 121014", ALGORITHM.manufacturer),
        ("HAS OBS CONTEXT", "TEXT", "DCM 121015", ALGORITHM.name),
        ("HAS OBS CONTEXT", "TEXT", "DCM 121017", "Hôpital Curie"),
        ("HAS CONCEPT MOD", "CODE", "DCM 121058", "25056-3"),
        ("CONTAINS", "CONTAINER", "DCM 111028", ""),
        ("CONTAINS", "CONTAINER", "DCM 126010", ""),
    ]


def test_measurement_group_follows_tid_1501() -> None:
    """The group: tracking, finding, site, algorithm (4019), probability, the answer once, source image, sentences."""
    ds = rendered([header()])
    group = group_of(ds)
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert rows(group)[:10] == [
        ("HAS OBS CONTEXT", "TEXT", "DCM 112039", ABSENT.tracking_id),
        ("HAS OBS CONTEXT", "UIDREF", "DCM 112040", ABSENT.tracking_uid),
        ("CONTAINS", "CODE", "DCM 121071", "108369006"),
        ("HAS CONCEPT MOD", "CODE", "SCT 363698007", "12738006"),
        ("HAS CONCEPT MOD", "TEXT", "DCM 111001", ALGORITHM.name),
        ("HAS CONCEPT MOD", "TEXT", "DCM 111003", ALGORITHM.version),
        ("HAS CONCEPT MOD", "TEXT", "DCM 122405", ALGORITHM.manufacturer),
        ("CONTAINS", "NUM", "DCM 122157", "97.12 %"),
        ("CONTAINS", "CODE", "SCT 108369006", "272519000"),
        ("CONTAINS", "IMAGE", "DCM 121112", "2.25.10001"),
    ]
    assert rows(child(group, "DCM 122157")) == [
        ("HAS CONCEPT MOD", "TEXT", "DCM 121106", "that no neoplasm of the brain is present")
    ]


@pytest.mark.parametrize(("said", "answer"), [(ABSENT, "272519000"), (PRESENT, "52101004"), (REFUSAL, "373068000")])
def test_the_answer_is_said_once(said: Finding | Refusal, answer: str) -> None:
    """Present, Absent or Undetermined stands in exactly one place of the tree."""
    answers = {"272519000", "52101004", "373068000"}
    ds = rendered([header()], said)
    codes = [element.value for element in ds.iterall() if element.keyword == "CodeValue" and element.value in answers]
    assert codes == [answer]


def test_sentences_are_those_of_plain_words() -> None:
    """The comments are the sentences that every other rendering has, and the site's statement."""
    evidence = [header()]
    report = report_of(evidence, PRESENT)
    assert comments(rendered(evidence, report=report)) == [*plain_words.sentences(report.result), STATEMENT]


def test_refusal() -> None:
    """A refusal has the question, "Undetermined", its sentence, all images in the library and no probability."""
    evidence = [header(1, Modality="CT"), header(2, Modality="CT")]
    ds = rendered(evidence, REFUSAL)
    kinds = [kind for _, kind, _, _ in rows(group_of(ds))]
    assert "NUM" not in kinds and "IMAGE" not in kinds
    assert comments(ds)[0] == REFUSAL.sentence
    assert child(ds, "DCM 121058").ConceptCodeSequence[0].CodeValue == "25045-6"
    assert [value for _, kind, _, value in rows(child(child(ds, "DCM 111028"), "DCM 126200")) if kind == "IMAGE"] == [
        "2.25.10001",
        "2.25.10002",
    ]


def test_refusal_is_tracked_across_revisions() -> None:
    """The tracking UID of a refusal stays the same when more images make a new revision."""
    report = report_of([header()], REFUSAL)
    later = replace(report, read=replace(report.read, revision=2))
    uids = {child(group_of(rendered([header()], report=one)), "DCM 112040").UID for one in (report, later)}
    study = (report.study.study_uid, ALGORITHM.name)
    assert uids == {name_uid(report.installation.namespace, *study, "finding", 1)}


def test_image_library_groups_what_is_alike() -> None:
    """Images of other series or matrix stand in groups of their own, and only what was read is listed."""
    evidence = [header(1), header(2), header(3, Rows=64), header(4)]
    report = report_of(evidence, ABSENT, images_read=[ref(ds) for ds in evidence[:3]])
    library = child(rendered(evidence, report=report), "DCM 111028")
    images = [[text for _, kind, _, text in rows(group) if kind == "IMAGE"] for group in library.ContentSequence]
    assert images == [["2.25.10001", "2.25.10002"], ["2.25.10003"]]
    assert rows(library.ContentSequence[0])[:6] == [
        ("HAS ACQ CONTEXT", "CODE", "DCM 121139", "MR"),
        ("HAS ACQ CONTEXT", "UIDREF", "DCM 112227", "2.25.1"),
        ("HAS ACQ CONTEXT", "NUM", "DCM 110910", "256 {pixels}"),
        ("HAS ACQ CONTEXT", "NUM", "DCM 110911", "192 {pixels}"),
        ("HAS ACQ CONTEXT", "NUM", "DCM 111026", "0.75 mm"),
        ("HAS ACQ CONTEXT", "NUM", "DCM 111066", "0.5 mm"),
    ]


def test_frames_of_a_multi_frame_image() -> None:
    """A key frame is named by its number; an image of which every frame was read is referred to as a whole."""
    ds = header(1, SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=3)
    every = [ref(ds, frame) for frame in (1, 2, 3)]
    report = report_of([ds], ABSENT, images_read=every, key_images=[ref(ds, 2)])
    sr = rendered([ds], report=report)
    assert value(child(group_of(sr), "DCM 121112")) == "2.25.10001 2"
    library = child(child(sr, "DCM 111028"), "DCM 126200")
    assert rows(library)[-1][3] == "2.25.10001"
    some = report_of([ds], ABSENT, images_read=every[:2], key_images=[])
    library = child(child(rendered([ds], report=some), "DCM 111028"), "DCM 126200")
    assert rows(library)[-1][3] == "2.25.10001 [1, 2]"


def test_highdicom_reads_it() -> None:
    """What highdicom's reader finds is the finding, its site, the probability, the answer and the source image."""
    content = render_sr(report_of([header()], ABSENT), [header()]).content
    report = hd.srread(io.BytesIO(content)).content
    (group,) = report.get_image_measurement_groups()
    assert group.finding_type == hd.CodedConcept("108369006", "SCT", "Neoplasm")
    assert group.finding_sites[0].value.meaning == "Brain"
    assert group.get_measurements()[0].value == 97.12
    assert group.get_qualitative_evaluations()[0].value.meaning == "Absent"
    assert group.source_images[0].referenced_sop_instance_uid == "2.25.10001"


def test_faults_of_the_source_stay_there() -> None:
    """Empty sequences, private schemes, empty laterality, placeholders and retired comments do not come out."""
    private = Dataset()
    private.CodeValue, private.CodingSchemeDesignator, private.CodeMeaning = "X", "UNDEFINED", "Something"
    source = header(
        ProcedureCodeSequence=DicomSequence([private]),
        Laterality="",
        NameOfPhysiciansReadingStudy="----",
        StudyComments="secret",
        MedicalAlerts="",
        PatientSex="X",
        PatientBirthDate="1867.11.07",
        StudyID=None,
    )
    ds = rendered([source])
    for keyword in (
        "ProcedureCodeSequence",
        "Laterality",
        "NameOfPhysiciansReadingStudy",
        "StudyComments",
        "MedicalAlerts",
    ):
        assert keyword not in ds
    assert (ds.PatientSex, ds.PatientBirthDate, ds.StudyID) == ("", "", "")
    assert b"UNDEFINED" not in render_sr(report_of([source], ABSENT), [source]).content


def test_standard_procedure_code_is_kept() -> None:
    """The procedure reported is the one that the source names in a standard code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "24590-2", "LN", "MR Brain"
    ds = rendered([header(ProcedureCodeSequence=DicomSequence([item]))])
    assert value(child(ds, "DCM 121058")) == "24590-2"


def test_empty_type_2_attributes() -> None:
    """A source without any optional header still gives a whole document."""
    empty = dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"))
    more = dict.fromkeys(("AccessionNumber", "StudyID", "Modality", "FrameOfReferenceUID", "Rows", "PixelSpacing"))
    ds = rendered([header(**{**empty, **more, "ReferringPhysicianName": None})])
    assert (ds.PatientID, ds.PatientSex, ds.StudyDate) == ("", "", "")
    assert value(child(ds, "DCM 121058")) == "363679005"


@pytest.mark.parametrize(
    ("charset", "patient", "written"),
    [
        (None, "Curie^Marie", "ISO_IR 100"),  # the organization needs more than ASCII
        ("ISO_IR 100", "Möller^Ægir", "ISO_IR 100"),
        ("ISO_IR 192", "Curie^Marie=居里^玛丽", "ISO_IR 192"),
        ("GB18030", "Wang^XiaoDong=王^小东", "GB18030"),
        ("ISO_IR 144", "Иванов^Иван", "ISO_IR 192"),  # Cyrillic has no "ô"
        (JAPANESE, "Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO_IR 192"),
        ("ISO_IR 999", "Curie^Marie", "ISO_IR 192"),
    ],
)
def test_patient_name_survives(charset: str | list[str] | None, patient: str, written: str) -> None:
    """A name reads back letter for letter, whatever the character sets of the source and of our own texts."""
    ds = rendered([header(SpecificCharacterSet=charset, PatientName=patient)])
    assert ds.SpecificCharacterSet == written
    assert str(ds.PatientName) == patient
    assert ds.InstitutionName == "Hôpital Curie"


def test_source_character_set_is_kept() -> None:
    """Where it can say everything, the source's own character set is used: code extensions, too."""
    evidence = [header(SpecificCharacterSet=JAPANESE, PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")]
    report = report_of(evidence, ABSENT)
    ds = rendered(evidence, report=replace(report, installation=replace(report.installation, organization="Curie")))
    assert list(ds.SpecificCharacterSet) == JAPANESE
    assert str(ds.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("offset", "hours_behind", "time"),
    [("+0530", None, "103607.080000"), (None, 5.5, "103607.080000"), (None, None, "050607.080000")],
)
def test_content_time_is_in_the_zone_of_the_study(offset: str | None, hours_behind: float | None, time: str) -> None:
    """Content Time is local like Study Time: by the source's offset, else by the zone the study was understood in."""
    evidence = [header(TimezoneOffsetFromUTC=offset)]
    report = report_of(evidence, ABSENT)
    if hours_behind is not None:
        started = NOW.replace(day=1, month=3, hour=6, minute=30, second=0, microsecond=0)
        report = replace(report, study=replace(report.study, started_at=started))
    ds = rendered(evidence, report=report)
    assert ds.ContentTime == time
    assert ds.get("TimezoneOffsetFromUTC") == offset


@pytest.mark.parametrize("status", [ResultStatus.FINAL, ResultStatus.AMENDED, ResultStatus.ENTERED_IN_ERROR])
def test_no_status_of_a_person_without_one(status: ResultStatus) -> None:
    """What only a person can make of a result is refused where nobody did, and what was rejected always is."""
    report = report_of([header()], ABSENT)
    with pytest.raises(RenderingError, match=status.value):
        render_sr(replace(report, result=replace(report.result, status=status)), [header()])


def wrong_evidence() -> Iterator[tuple[Report, list[Dataset], str]]:
    """Reports whose evidence does not fit."""
    report = report_of([header(1), header(2)], ABSENT)
    yield report, [header(1)], "not those"
    yield report, [header(2), header(1)], "not those"
    yield replace(report, instances=()), [], "has none"
    yield report_of([header(1)], ABSENT, images_read=[ref(header(9))]), [header(1)], "not in the study"


@pytest.mark.parametrize(("report", "evidence", "message"), wrong_evidence())
def test_evidence_must_fit(report: Report, evidence: list[Dataset], message: str) -> None:
    """Headers of other images, none, or a reference to an unknown image are refused."""
    with pytest.raises(RenderingError, match=message):
        render_sr(report, evidence)


def test_no_patient_data_in_logs_or_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """A name or number that breaks the rules of its representation is named in no log line and no warning."""
    source = header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source.PatientName, source.PatientID = "Very Strange Name", "P" * 70
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = rendered([source])
    assert ds.PatientID == "P" * 70
    told = " ".join([*caplog.messages, *(str(one.message) for one in caught)])
    assert "Strange" not in told and "PPPP" not in told


def test_long_and_odd_texts() -> None:
    """Texts of the bundle or the site that LO does not allow are fitted, and meanings in the tree are untouched."""
    evidence = [header()]
    report = report_of(evidence, replace(ABSENT, site=Code("SCT", "12738006", "Brain")))
    algorithm = replace(ALGORITHM, title="T" * 90, manufacturer="A\\B")
    report = replace(report, result=replace(report.result, algorithm=algorithm))
    ds = rendered(evidence, report=report)
    assert (len(ds.ManufacturerModelName), ds.Manufacturer) == (64, "A/B")
    assert child(ds, "DCM 121013").TextValue == "T" * 90


def test_unreadable_numbers_are_left_out() -> None:
    """A header whose numbers cannot be read costs the descriptor, not the document."""
    ds = rendered([header(PixelSpacing="", NumberOfFrames="")])
    library = child(child(ds, "DCM 111028"), "DCM 126200")
    assert "DCM 111026" not in [concept for _, _, concept, _ in rows(library)]


def test_code_that_cannot_be_written() -> None:
    """A code whose meaning is longer than DICOM allows is refused by its value."""
    with pytest.raises(RenderingError, match="SCT 1 "):
        rendered([header()], replace(ABSENT, code=Code("SCT", "1", "M" * 65)))


def test_evidence_is_left_as_it_was() -> None:
    """Rendering reads the headers and changes none of them."""
    evidence = [header(SpecificCharacterSet="ISO_IR 144", PatientName="Иванов^Иван")]
    rendered(evidence)
    assert evidence == [header(SpecificCharacterSet="ISO_IR 144", PatientName="Иванов^Иван")]


def test_it_grows_with_the_images_and_no_faster() -> None:
    """Ten times the images make a report ten times as long, with ten times the work; a square would be a hundred."""

    def rendered_of(count: int) -> tuple[int, float]:
        evidence = [header(number) for number in range(count)]
        report = report_of(evidence, ABSENT)
        costs = []
        for _ in range(3):
            start = time.process_time()  # of this process alone, whoever else is busy
            content = render_sr(report, evidence).content
            costs.append(time.process_time() - start)
        assert len(content) < 400 * count + 20_000
        return len(content), min(costs)

    few, many = rendered_of(50), rendered_of(500)
    assert many[0] < 12 * few[0]
    assert many[1] < 40 * few[1]
