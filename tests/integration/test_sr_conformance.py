"""The SR under other people's eyes: dicom3tools' `dciodvfy` and DCMTK's `dsrdump`, on headers of real scanners."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import highdicom.sr as hd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from fhir_records.model import Act, EarlierResult, Finding, Refusal, Region, Report, ResultStatus
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.renderings.kinds import SR_CLASS_OF_WORD
from fhir_records.renderings.sr_classes import in_class
from tests.integration.object_sources import SAID, SOURCES
from tests.peers import dciodvfy, dsrdump
from tests.unit.fhir_records.renderings.sr_reports import (
    ABSENT,
    PRESENT,
    REFUSAL,
    STATEMENT,
    header,
    ref,
    report_of,
    signature,
)


def headers(paths: Sequence[Path]) -> list[Dataset]:
    """The headers of these files, as the product reads them."""
    return [dcmread(path, stop_before_pixels=True) for path in paths]


def written(folder: Path, evidence: Sequence[Dataset], said: Finding | Refusal) -> Path:
    """The SR about these images, as a file."""
    path = folder / "sr.dcm"
    path.write_bytes(render_sr(report_of(evidence, said), evidence).content)
    return path


def assert_conforms(sr: Path, source: Path | None = None) -> None:
    """No error, and no warning but those that the same value causes in the source."""
    errors, warnings = dciodvfy(sr)
    known = set(dciodvfy(source).warnings) if source else set()
    assert not errors, errors
    assert not set(warnings) - known, set(warnings) - known


@pytest.mark.parametrize("answer", SAID)
def test_real_head_series(tmp_path: Path, test_data: Path, answer: str) -> None:
    """The 170 real objects with their faulty headers give an SR without error and without a warning of our own."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))
    sr = written(tmp_path, headers(paths), SAID[answer])
    assert_conforms(sr, paths[0])
    ds = dcmread(sr)
    for keyword in ("ProcedureCodeSequence", "Laterality", "StudyComments"):
        assert keyword in dcmread(paths[0]) and keyword not in ds
    assert b"UNDEFINED" in paths[0].read_bytes() and b"UNDEFINED" not in sr.read_bytes()


@pytest.mark.parametrize("answer", SAID)
@pytest.mark.parametrize("name", SOURCES)
def test_assorted_sources(tmp_path: Path, test_data: Path, name: str, answer: str) -> None:
    """Whatever kind of image is read or refused, its SR conforms, and DCMTK and highdicom read it."""
    source = test_data / "dicom" / name
    sr = written(tmp_path, headers([source]), SAID[answer])
    assert_conforms(sr, source)
    assert STATEMENT in dsrdump(sr)
    assert len(hd.srread(sr).content.get_image_measurement_groups()) == 1


def signed(report: Report, act: str) -> Report:
    """The report as a person has made it."""
    made = signature(Act.CORRECT if act != "accepted" else Act.ACCEPT, note="Seen.", machine_said="Glioma: present")
    finding = report.result.finding
    assert finding is not None
    if act != "accepted":
        image = finding.key_images[0]
        region = Region(image, 1, 1, 5, 4.5) if act == "marked" else None
        finding = replace(finding, probability=None, alternatives=(), limits=(), author=made.signer, region=region)
    result = replace(report.result, version=2, status=ResultStatus.FINAL, finding=finding, signature=made)
    earlier = EarlierResult(report.read, 1, "2.25.71", "2.25.72", Comprehensive3DSRStorage)
    return replace(report, result=result, replaces=(earlier,))


@pytest.mark.parametrize("act", ["accepted", "corrected", "marked"])
@pytest.mark.parametrize("name", SOURCES)
def test_signed_reports_of_assorted_sources(tmp_path: Path, test_data: Path, name: str, act: str) -> None:
    """What a person has accepted, corrected or marked conforms like what nobody has, and says who."""
    source = test_data / "dicom" / name
    evidence = headers([source])
    report = signed(report_of(evidence, PRESENT, key_images=[ref(evidence[0], frame_of(evidence[0]))]), act)
    sr = tmp_path / "sr.dcm"
    sr.write_bytes(render_sr(report, evidence).content)
    assert_conforms(sr, source)
    dump = dsrdump(sr)
    assert "Verification Flag   : VERIFIED" in dump and "Curie^Marie^^Dr" in dump and "Predecessor Docs    : 1" in dump
    assert ("Person Observer Name" in dump) == (act != "accepted")
    assert ("POLYLINE,1/1,6/1,6/5.5,1/5.5,1/1" in dump) == (act == "marked")
    assert hd.srread(sr).VerifyingObserverSequence[0].VerificationDateTime == "20260304050607.080000+0000"


@pytest.mark.parametrize("said", [*SAID, "signed"])
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("word", ["comprehensive", "enhanced"])
def test_fallback_classes_of_assorted_sources(tmp_path: Path, test_data: Path, word: str, name: str, said: str) -> None:
    """In the classes for older archives it conforms like the report that it is made from, for the same readers."""
    source = test_data / "dicom" / name
    evidence = headers([source])
    report = report_of(evidence, SAID.get(said, PRESENT))
    if said == "signed":
        marked = report_of(evidence, PRESENT, key_images=[ref(evidence[0], frame_of(evidence[0]))])
        report = signed(marked, "marked")
    sop_class_uid = SR_CLASS_OF_WORD[word]
    rendered = render_sr(report, evidence)
    made = in_class(report.installation, rendered.content, sop_class_uid, {})
    assert made.sop_class_uid == sop_class_uid and made.sop_uid != rendered.sop_uid
    assert faults_of(made.content) == ()
    sr, first = tmp_path / "sr.dcm", tmp_path / "first.dcm"
    sr.write_bytes(made.content)
    first.write_bytes(rendered.content)
    assert_conforms(sr, source)
    content, before = hd.srread(sr).content, hd.srread(first).content
    assert type(hd.srread(sr)).__name__ == {"comprehensive": "ComprehensiveSR", "enhanced": "EnhancedSR"}[word]
    for get in ("get_image_measurement_groups", "get_planar_roi_measurement_groups"):
        assert len(getattr(content, get)()) == len(getattr(before, get)())
    # DCMTK knows what each class may relate to what, and leaves out of its dump what it may not.
    assert tree_of(dsrdump(sr)) == tree_of(dsrdump(first))


def tree_of(dump: str) -> list[str]:
    """The content tree in a dump: what follows the document's own lines."""
    lines = dump.splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("<CONTAINER")) :]


def frame_of(ds: Dataset) -> int | None:
    """The first frame where there are several."""
    return 1 if int(ds.get("NumberOfFrames") or 1) > 1 else None


def test_a_signed_report_is_final_only_where_the_site_says_so() -> None:
    """PreliminaryFlag stays PRELIMINARY otherwise."""
    evidence = [header()]
    report = signed(report_of(evidence, PRESENT), "accepted")
    flags = []
    for final in (False, True):
        installation = replace(report.installation, signed_is_final=final)
        ds = dcmread(io.BytesIO(render_sr(replace(report, installation=installation), evidence).content))
        flags.append((ds.VerificationFlag, ds.PreliminaryFlag))
    assert flags == [("VERIFIED", "PRELIMINARY"), ("VERIFIED", "FINAL")]


def test_an_unsigned_report_stays_preliminary_whatever_the_site_says() -> None:
    """FINAL is a person's."""
    evidence = [header()]
    report = report_of(evidence, PRESENT)
    report = replace(report, installation=replace(report.installation, signed_is_final=True))
    ds = dcmread(io.BytesIO(render_sr(report, evidence).content))
    assert (ds.VerificationFlag, ds.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_deidentified_series(tmp_path: Path, test_data: Path) -> None:
    """Of a faulty private de-identification code, the SR keeps the method in words, and has no error."""
    paths = sorted((test_data / "dicom/ge_fruit_mr").glob("*.dcm"))[:5]
    sr = written(tmp_path, headers(paths), ABSENT)
    assert_conforms(sr, paths[0])
    assert dcmread(sr).DeidentificationMethod == dcmread(paths[0]).DeidentificationMethod


@pytest.mark.parametrize(
    ("charset", "patient"),
    [
        ("ISO_IR 100", "Möller^Ægir"),
        ("ISO_IR 192", "Curie^Marie=居里^玛丽"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_character_sets(tmp_path: Path, charset: str | list[str], patient: str) -> None:
    """A name in another script passes both checkers."""
    evidence = [header(SpecificCharacterSet=charset, PatientName=patient)]
    report = report_of(evidence, ABSENT)
    report = replace(report, installation=replace(report.installation, organization="Curie"))
    sr = tmp_path / "sr.dcm"
    sr.write_bytes(render_sr(report, evidence).content)
    assert_conforms(sr)
    assert dsrdump(sr)
    assert str(dcmread(sr).PatientName) == patient


def test_empty_headers(tmp_path: Path) -> None:
    """A source with nothing in it but its UIDs gives no error, and no warning but that the patient is not named."""
    bare = {element.keyword: None for element in header() if element.VR != "UI"}
    errors, warnings = dciodvfy(written(tmp_path, [header(**bare)], ABSENT))
    assert not errors
    assert all("DICOMDIR" in warning for warning in warnings), warnings


def test_what_a_reader_sees(tmp_path: Path) -> None:
    """In a dump, a "no" is a "no", with its probability, algorithm, tracking UID and source image."""
    dump = dsrdump(written(tmp_path, [header(1), header(2)], ABSENT))
    for text in (
        "Wetread AI read: no neoplasm of the brain (preliminary)",
        '"Neoplasm")=(272519000,SCT,"Absent")',
        "No neoplasm of the brain (probability 97 %).",
        '"Probability")="97.12" (%,UCUM,"Percent")',
        "that no neoplasm of the brain is present",
        ABSENT.tracking_uid,
        '"Algorithm Name")="brain_mr_tumour"',
        "2.25.10001",
        STATEMENT,
    ):
        assert text in dump, text


def test_what_a_reader_sees_of_a_refusal(tmp_path: Path) -> None:
    """In a dump, a refusal says that nothing was read, and why."""
    dump = dsrdump(written(tmp_path, [header()], REFUSAL))
    assert REFUSAL.sentence in dump
    assert '"Neoplasm")=(373068000,SCT,"Undetermined")' in dump
    assert '"Probability"' not in dump


def test_key_frame(tmp_path: Path, test_data: Path) -> None:
    """A key frame of a real enhanced object is referred to by its number, and the SR conforms."""
    source = test_data / "dicom/assorted/emri_small.dcm"
    (ds,) = headers([source])
    report = report_of([ds], PRESENT, images_read=[ref(ds, n) for n in range(1, 11)], key_images=[ref(ds, 4)])
    sr = tmp_path / "sr.dcm"
    sr.write_bytes(render_sr(report, [ds]).content)
    assert_conforms(sr, source)
    (group,) = hd.srread(sr).content.get_image_measurement_groups()
    assert group.source_images[0].referenced_frame_numbers == [4]


def test_speed_on_real_headers(test_data: Path) -> None:
    """An SR about 170 real headers takes well under a second of rendering."""
    evidence = headers(sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm")))
    report = report_of(evidence, ABSENT)
    start = time.process_time()
    render_sr(report, evidence)
    assert time.process_time() - start < 1
