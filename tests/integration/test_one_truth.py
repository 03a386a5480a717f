"""One truth: any legal result says the same in every form, read back by other programs than those that wrote it.

The DICOM objects are written by pydicom and highdicom and read by DCMTK's `dcm2xml`; the PDF is written by reportlab
and read by PDFium; FHIR is read as plain JSON.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import highdicom as hd
import numpy as np
import pypdfium2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from fhir_records.model import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Identifier,
    Outlines,
    Presence,
    Refusal,
    Report,
    SegmentMask,
    SegmentVolume,
)
from fhir_records.renderings import kinds, plain_words
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.fhir import render_report
from fhir_records.renderings.segment_masks import segments_of
from fhir_records.renderings.sr_classes import in_class
from tests.integration.object_sources import data_set, rendered
from tests.peers import need, run_program
from tests.unit.fhir_records.renderings.sr_reports import header, ref, report_of

LETTERS = st.characters(categories=("Lu", "Ll"), max_codepoint=0x17F)
WORD = st.text(LETTERS, min_size=2, max_size=12)
SENTENCE = st.lists(WORD, min_size=2, max_size=12).map(lambda words: " ".join(words).capitalize() + ".")
CODES = [
    Code("SCT", "108369006", "Neoplasm"),
    Code("SCT", "393564001", "Glioma"),
    Code("SCT", "233604007", "Pneumonia"),
    Code("SCT", "254956000", "Pituitary adenoma"),
    Code("SCT", "840539006", "COVID-19"),
]
SITES = [
    Code("SCT", "12738006", "Brain"),
    Code("SCT", "39607008", "Lung"),
    Code("SCT", "56329008", "Pituitary"),
    Code("SCT", "85562004", "Hand"),
]
PROBABILITY = st.floats(0, 1)
ALGORITHMS = st.builds(
    Algorithm,
    name=st.from_regex(r"[a-z][a-z_]{2,20}", fullmatch=True),
    version=st.from_regex(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}", fullmatch=True),
    title=st.lists(WORD, min_size=1, max_size=3).map(" ".join),
    manufacturer=WORD,
    device_uid=st.integers(1, 2**127).map("2.25.{}".format),
    weights_sha256=st.just("ab" * 32),
)
# Undetermined is what a refusal says; a model's finding is present or absent.
FINDINGS = st.builds(
    Finding,
    label=WORD,
    code=st.sampled_from(CODES),
    presence=st.sampled_from([Presence.PRESENT, Presence.ABSENT]),
    probability=PROBABILITY,
    site=st.sampled_from(SITES),
    key_images=st.just(()),
    limits=st.lists(SENTENCE, max_size=3).map(tuple),
    alternatives=st.lists(
        st.builds(ClassProbability, WORD, st.sampled_from(CODES), st.sampled_from(list(Presence)[:2]), PROBABILITY),
        max_size=3,
    ).map(tuple),
    tracking_id=WORD,
    tracking_uid=st.just("2.25.31415926535897932384626433832795028841"),
)
REFUSALS = st.builds(
    Refusal,
    code=st.just("modality"),
    sentence=SENTENCE.map(lambda text: f"Not read, because {text[:1].lower()}{text[1:]}"),
    question=st.sampled_from(CODES),
    site=st.sampled_from(SITES),
)
INSTANTS = st.integers(1_600_000_000_000_000, 3_000_000_000_000_000).map(
    lambda microseconds: dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)
)


ROWS, COLUMNS, SPACING, GAP = 24, 20, (0.5, 0.75), 2.5
CATEGORY = Code("SCT", "49755003", "Morphologically abnormal structure")


@st.composite
def outlined(draw: st.DrawFn, evidence: list[Dataset]) -> tuple[tuple[SegmentVolume, ...], Outlines]:
    """Up to three things outlined on these images, each a box on some of them."""
    volumes, masks = [], []
    for number in range(1, draw(st.integers(0, 3)) + 1):
        places = draw(st.sets(st.integers(0, len(evidence) - 1), min_size=1))
        height, width = draw(st.integers(1, ROWS)), draw(st.integers(1, COLUMNS))
        box = np.zeros((ROWS, COLUMNS), bool)
        box[:height, :width] = True
        bits = zlib.compress(np.packbits(box).tobytes())
        masks += [SegmentMask(number, place, bits) for place in sorted(places)]
        # One image has no neighbour: it is as thick as it says.
        volume = height * width * len(places) * SPACING[0] * SPACING[1] * GAP
        label, colour = draw(WORD), draw(st.tuples(*[st.integers(0, 255)] * 3))
        code, site = draw(st.sampled_from(CODES)), draw(st.sampled_from(SITES))
        volumes.append(
            SegmentVolume(
                label, draw(WORD), code, CATEGORY, site, colour, round(volume, 1), f"x {label}", f"2.25.7{number}"
            )
        )
    return tuple(volumes), Outlines(ROWS, COLUMNS, tuple(ref(ds) for ds in evidence), tuple(masks))


@st.composite
def reports(draw: st.DrawFn) -> tuple[Report, list[Dataset], Outlines]:
    """A report that says anything that a result may say, the headers of its images, and what is outlined on them."""
    patient_id, family, given_name = draw(WORD), draw(WORD), draw(WORD)
    told = {"PatientID": patient_id, "PatientName": f"{family}^{given_name}", "SpecificCharacterSet": "ISO_IR 192"}
    place: dict[str, Any] = {
        "Rows": ROWS,
        "Columns": COLUMNS,
        "PixelSpacing": list(SPACING),
        "SliceThickness": GAP,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    evidence = [
        header(number, **told, **place, ImagePositionPatient=[0, 0, GAP * number])
        for number in range(1, draw(st.integers(1, 3)) + 1)
    ]
    volumes, outlines = draw(outlined(evidence))
    said = draw(FINDINGS | REFUSALS)
    if isinstance(said, Finding):
        said = replace(said, segments=volumes)
    report = report_of(evidence, said, key_images=[ref(evidence[-1])])
    patient = replace(
        report.study.patient, name=f"{family}^{given_name}", identifiers=(Identifier(patient_id, "HOSP"),)
    )
    algorithm = draw(ALGORITHMS)
    return (
        replace(
            report,
            study=replace(report.study, patient=patient),
            read=replace(report.read, model=algorithm.name, model_version=algorithm.version),
            result=replace(report.result, algorithm=algorithm, created_at=draw(INSTANTS)),
        ),
        evidence,
        outlines,
    )


@dataclass(frozen=True)
class Facts:
    """What a rendering says, as far as it can say it."""

    question: str  # code value
    presence: Presence
    probability: float | None  # percent
    patient: str
    study: str
    preliminary: bool
    model: str
    version: str
    at: dt.datetime
    volumes: tuple[float, ...]  # of what is outlined, mm3


def facts_of(report: Report) -> Facts:
    """What the result says."""
    finding, refusal = report.result.finding, report.result.refusal
    probability = None
    if finding is not None and finding.probability is not None:
        probability = min(max(round(finding.probability * 100, 2), 0.01), 99.99)
    said = finding.code if finding else refusal.question if refusal else None
    assert said is not None
    return Facts(
        question=said.value,
        presence=finding.presence if finding else Presence.UNDETERMINED,
        probability=probability,
        patient=report.study.patient.identifiers[0].value,
        study=report.study.study_uid,
        preliminary=True,
        model=report.result.algorithm.name,
        version=report.result.algorithm.version,
        at=report.result.created_at,
        volumes=tuple(segment.volume_mm3 for segment in finding.segments) if finding else (),
    )


# --- reading back -------------------------------------------------------------------------------------------------

Item = Mapping[str, Any]
CODE_OF_PRESENCE = {"52101004": Presence.PRESENT, "272519000": Presence.ABSENT, "373068000": Presence.UNDETERMINED}


def dcmtk(content: bytes) -> Item:
    """The object's data set as DCMTK reads it: keyword to text, or to the items of a sequence."""
    need("dcm2xml")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object.dcm"
        path.write_bytes(content)
        run = run_program("dcm2xml", str(path), str(path.with_suffix(".xml")))
        assert run.status == 0, run.output
        root = ElementTree.parse(path.with_suffix(".xml")).getroot()
    found = root.find("data-set")
    assert found is not None
    return item_of(found)


def item_of(node: ElementTree.Element) -> Item:
    made: dict[str, Any] = {}
    for child in node:
        if child.tag == "element":
            made[child.attrib["name"]] = child.text or ""
        elif child.tag == "sequence":
            made[child.attrib["name"]] = [item_of(one) for one in child if one.tag == "item"]
    return made


def walk(item: Item) -> Iterator[Item]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from walk(child)


def texts_of(item: Item) -> Iterator[str]:
    for value in item.values():
        if isinstance(value, str):
            yield value
        else:
            for one in value:
                yield from texts_of(one)


def said_by(tree: Item, code: str) -> list[Item]:
    """The content items with this concept name."""
    return [one for one in walk(tree) if one.get("ConceptNameCodeSequence", [{}])[0].get("CodeValue") == code]


def from_sr(ds: Item) -> Facts:
    """The structured report's facts."""
    question = said_by(ds, "121071")[0]["ConceptCodeSequence"][0]["CodeValue"]
    (answer,) = [one for one in said_by(ds, question) if one["ValueType"] == "CODE"]
    numbers = [one for one in said_by(ds, "122157") if one["ValueType"] == "NUM"]
    return Facts(
        question=question,
        presence=CODE_OF_PRESENCE[answer["ConceptCodeSequence"][0]["CodeValue"]],
        probability=float(numbers[0]["MeasuredValueSequence"][0]["NumericValue"]) if numbers else None,
        patient=ds["PatientID"],
        study=ds["StudyInstanceUID"],
        preliminary=(ds["PreliminaryFlag"], ds["VerificationFlag"]) == ("PRELIMINARY", "UNVERIFIED"),
        model=said_by(ds, "111001")[0]["TextValue"],
        version=said_by(ds, "111003")[0]["TextValue"],
        at=written_at(ds),
        volumes=tuple(
            float(one["MeasuredValueSequence"][0]["NumericValue"])
            for one in said_by(ds, "118565006")
            if one["MeasuredValueSequence"][0]["MeasurementUnitsCodeSequence"][0]["CodeValue"] == "mm3"
        ),
    )


def written_at(ds: Item) -> dt.datetime:
    """When the model made it, as the object says in UTC; the content's own date and time are the same instant."""
    said = dt.datetime.strptime(ds["ContributingEquipmentSequence"][0]["ContributionDateTime"], "%Y%m%d%H%M%S.%f%z")
    time = ds["ContentTime"] if "." in ds["ContentTime"] else f"{ds['ContentTime']}.0"
    content = dt.datetime.strptime(f"{ds['ContentDate']}{time}+0000", "%Y%m%d%H%M%S.%f%z")
    assert content == said
    return said


def from_fhir(resources: Mapping[str, Any]) -> Facts:
    """The facts of Observation, Patient, ImagingStudy and Device together."""
    seen, device = resources["Observation"], resources["Device"]
    answer = seen.get("valueCodeableConcept")
    numbers = [
        part["valueQuantity"]["value"]
        for part in seen.get("component", ())
        if part["code"].get("coding", [{}])[0].get("code") == "122157"
    ]
    names = {entry["type"]: entry["name"] for entry in device["deviceName"]}
    study = resources["ImagingStudy"]["identifier"][0]["value"]
    assert ("dataAbsentReason" in seen) == (answer is None)
    return Facts(
        question=seen["code"]["coding"][0]["code"],
        presence=CODE_OF_PRESENCE[answer["coding"][0]["code"]] if answer else Presence.UNDETERMINED,
        probability=float(numbers[0]) if numbers else None,
        patient=next(one["value"] for one in resources["Patient"]["identifier"] if one["value"].isalpha()),
        study=study.removeprefix("urn:oid:"),
        preliminary=seen["status"] == ("preliminary" if answer else "cancelled"),
        model=names["model-name"],
        version=next(entry["value"] for entry in device["version"] if entry["type"]["text"] == "Model version"),
        at=dt.datetime.fromisoformat(seen["issued"]),
        volumes=tuple(
            round(part["valueQuantity"]["value"] * 1000, 1)
            for part in seen.get("component", ())
            if part["code"].get("coding", [{}])[0].get("code") == "118565006" and part["valueQuantity"]["code"] == "mL"
        ),
    )


def measured_volumes(seg: hd.seg.Segmentation) -> list[float]:
    """The volume of each segment in mm3, by its voxels and what the object says of their size."""
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    depth = float(measures.get("SpacingBetweenSlices") or measures.SliceThickness)
    voxel = float(measures.PixelSpacing[0]) * float(measures.PixelSpacing[1]) * depth
    frames = np.atleast_3d(seg.pixel_array) if seg.NumberOfFrames > 1 else seg.pixel_array[None]
    counts = [0] * len(seg.SegmentSequence)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        counts[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1] += int(frame.sum())
    return [count * voxel for count in counts]


def check_words(text: str, report: Report) -> None:
    """A flat text says no where the answer is no, not read where nothing was read, and else neither."""
    finding = report.result.finding
    if finding is None:
        assert re.search(r"not read", text, re.IGNORECASE), text
    elif finding.presence is Presence.ABSENT:
        assert re.search(r"\bno ", text, re.IGNORECASE) or "absent" in text, text
    else:
        assert "present" in text, text


# Every example starts nine programs, so that shrinking one would take minutes; what is found is small enough to read.
# A long run: WETREAD_TEST_EXAMPLES=500 pytest --hypothesis-seed=7 tests/integration/test_one_truth.py
@settings(
    max_examples=int(os.environ.get("WETREAD_TEST_EXAMPLES", "25")),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(reports())
def test_every_form_says_the_same(case: tuple[Report, list[Dataset], Outlines]) -> None:
    """The same question, answer, probability, volumes, patient, study, status, model and time in every form."""
    report, evidence, outlines = case
    expected = facts_of(report)
    objects = rendered(report, evidence, segments=segments_of(report.result.finding, outlines))
    assert {kind: faults for kind, made in objects.items() if (faults := faults_of(made.content))} == {}
    read = {kind: dcmtk(made.content) for kind, made in objects.items()}
    fhir = {one.type: json.loads(one.text) for one in render_report(report)}
    assert from_sr(read[kinds.SR]) == expected
    for sop_class_uid in kinds.SR_CLASSES[1:]:
        other = in_class(report.installation, objects[kinds.SR].content, sop_class_uid, {})
        assert faults_of(other.content) == ()
        assert from_sr(dcmtk(other.content)) == expected
    assert from_fhir(fhir) == expected

    headline = plain_words.headline(report.result)
    for kind, ds in read.items():
        assert (ds["PatientID"], ds["StudyInstanceUID"]) == (expected.patient, expected.study), kind
        assert ds["PatientName"] == report.study.patient.name, kind
        assert (ds["SoftwareVersions"], written_at(ds)) == (expected.version, expected.at), kind
        assert f"Model {expected.model}," in ds["ContributingEquipmentSequence"][0]["ContributionDescription"], kind
        title = ds.get("SeriesDescription", "")
        check_words(title, report)
        assert "(preliminary)" in title, kind
        if kind != kinds.ENCAPSULATED_PDF:
            assert any(headline in text for text in texts_of(ds)), kind
    assert read[kinds.SECONDARY_CAPTURE]["DerivationDescription"] == headline
    assert read[kinds.SECONDARY_CAPTURE]["ImageComments"].split("\n")[0] == f"{headline.rstrip('.')}."

    document = pypdfium2.PdfDocument(data_set(objects[kinds.ENCAPSULATED_PDF]).EncapsulatedDocument)
    printed = " ".join(document[0].get_textpage().get_text_range().replace("\xa0", " ").split())
    assert headline.rstrip(".") in printed
    assert expected.version in printed and "NOT SIGNED" in printed

    flat = (headline, fhir["DiagnosticReport"]["conclusion"], fhir["DiagnosticReport"]["result"][0]["display"], printed)
    for text in flat:
        check_words(text, report)
    for segment in report.result.finding.segments if report.result.finding else ():
        words = f"{segment.volume_mm3 / 1000:.1f} mL" if segment.volume_mm3 >= 100 else "under 0.1 mL"
        assert plain_words.volume_words(segment.volume_mm3) == words
        assert words in fhir["DiagnosticReport"]["conclusion"] and words in printed
        assert words in read[kinds.SECONDARY_CAPTURE]["ImageComments"]
    assert (kinds.SEGMENTATION in read) == bool(expected.volumes)
    if expected.volumes:
        seg = hd.seg.segread(io.BytesIO(objects[kinds.SEGMENTATION].content))
        assert measured_volumes(seg) == pytest.approx(expected.volumes, abs=0.06)
    if expected.probability is not None:
        assert report.result.finding is not None and report.result.finding.probability is not None
        assert plain_words.probability_words(report.result.finding.probability) in printed
