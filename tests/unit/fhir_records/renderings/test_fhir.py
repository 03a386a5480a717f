from __future__ import annotations

import datetime as dt
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.errors import RenderingError
from fhir_records.model import Act, Code, Finding, Identifier, Presence, Refusal, ResultStatus
from fhir_records.renderings.fhir import render_report, render_study
from fhir_records.renderings.fhir.datatypes import human_names
from fhir_records.renderings.fhir.ids import issuer_system
from fhir_records.renderings.fhir.validation import REQUIRED_VALUE_SETS, validate
from tests.unit.fhir_records.renderings.fhir_reports import (
    ABSENT,
    INSTALLATION,
    INSTANCES,
    MENINGIOMA,
    NEOPLASM,
    PATIENT,
    PRESENT,
    REFUSAL,
    STUDY,
    instance,
    report_of,
)
from tests.unit.fhir_records.renderings.sr_reports import signature

EVERYTHING = [PRESENT, ABSENT, REFUSAL]
TYPES = {"Patient", "ImagingStudy", "Device", "Observation", "DiagnosticReport", "Provenance"}


def rendered(said: Finding | Refusal, **options: Any) -> dict[str, Any]:
    return {resource.type: json.loads(resource.text) for resource in render_report(report_of(said, **options))}


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


@pytest.mark.parametrize("said", EVERYTHING, ids=["present", "absent", "refused"])
def test_every_resource_is_read_back_whole_by_an_r4_model(said: Finding | Refusal) -> None:
    """Each resource parses as R4B and comes back with the elements that went in."""
    resources = rendered(said)
    assert set(resources) == TYPES
    for kind, resource in resources.items():
        model = get_fhir_model_class(kind).model_validate(resource)
        assert json.loads(model.model_dump_json()).keys() == resource.keys()


@pytest.mark.parametrize("said", EVERYTHING, ids=["present", "absent", "refused"])
def test_references_lead_to_what_was_written_with_them(said: Finding | Refusal) -> None:
    """No reference dangles."""
    resources = rendered(said)
    there = {f"{kind}/{resource['id']}" for kind, resource in resources.items()}
    pointed = {
        text for text in strings(list(resources.values())) if re.fullmatch(r"[A-Z][A-Za-z]+/[0-9a-f-]{36}", text)
    }
    assert pointed
    assert pointed <= there


def test_the_same_report_gives_the_same_texts() -> None:
    """A rendering has no clock and no chance."""
    assert render_report(report_of(PRESENT)) == render_report(report_of(PRESENT))


def test_a_present_finding_is_said_once_with_its_probability() -> None:
    """Question, answer and probability stand in code, value and the component DCM 122157."""
    observation = rendered(PRESENT)["Observation"]
    assert observation["status"] == "preliminary"
    assert observation["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "393564001",
        "display": "Glioma",
    }
    assert observation["valueCodeableConcept"]["coding"][0]["code"] == "52101004"
    probability, meningioma, none = observation["component"]
    assert probability["code"]["coding"][0]["code"] == "122157"
    assert probability["valueQuantity"] == {
        "value": 93.12,
        "unit": "%",
        "system": "http://unitsofmeasure.org",
        "code": "%",
    }
    assert meningioma["code"]["coding"][0]["code"] == MENINGIOMA.value
    assert meningioma["valueQuantity"]["value"] == 5.0
    assert "coding" not in none["code"]
    assert "no Neoplasm" in none["code"]["text"]


@pytest.mark.parametrize("said", EVERYTHING, ids=["present", "absent", "refused"])
def test_observation_invariants_hold(said: Finding | Refusal) -> None:
    """R4 obs-6 and obs-7: no reason for absence beside a value, no component under the Observation's own code."""
    observation = rendered(said)["Observation"]
    assert ("valueCodeableConcept" in observation) != ("dataAbsentReason" in observation)
    own = {(coding["system"], coding["code"]) for coding in observation["code"]["coding"]}
    for component in observation.get("component", []):
        assert not own & {(coding["system"], coding["code"]) for coding in component["code"].get("coding", [])}


def test_an_absent_finding_says_no_everywhere() -> None:
    """Value, conclusion, narrative and the line beside the reference all say that nothing was found."""
    resources = rendered(ABSENT)
    report, observation = resources["DiagnosticReport"], resources["Observation"]
    assert observation["valueCodeableConcept"]["coding"][0]["code"] == "272519000"
    for text in (
        report["conclusion"],
        report["text"]["div"],
        report["result"][0]["display"],
        observation["text"]["div"],
    ):
        assert "no neoplasm" in text.lower()


def test_a_refusal_is_cancelled_with_the_reason() -> None:
    """A study that was not read has an answer with a coded reason, and no value."""
    resources = rendered(REFUSAL)
    observation = resources["Observation"]
    assert observation["status"] == resources["DiagnosticReport"]["status"] == "cancelled"
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert observation["dataAbsentReason"]["text"] == REFUSAL.sentence
    assert "component" not in observation
    assert "Not read, because" in resources["DiagnosticReport"]["conclusion"]


def test_what_a_machine_says_is_marked_and_claims_no_person() -> None:
    """AIAST, the words, the site's statement; neither profile nor performer nor interpreter."""
    resources = rendered(PRESENT)
    for kind in ("Observation", "DiagnosticReport"):
        resource = resources[kind]
        assert resource["meta"]["security"][0]["code"] == "AIAST"
        assert not {"performer", "resultsInterpreter"} & resource.keys()
        assert "profile" not in resource["meta"]
        assert "AI finding, not the radiology report" in resource["text"]["div"]
        assert INSTALLATION.statement in resource["text"]["div"]
    assert "AI finding, not the radiology report" in resources["DiagnosticReport"]["conclusion"]
    agent = resources["Provenance"]["agent"]
    assert [entry["who"]["reference"].split("/")[0] for entry in agent] == ["Device"]


def test_a_result_in_error_says_so() -> None:
    """A rejected result becomes entered-in-error under the same id."""
    before = rendered(PRESENT)
    after = rendered(PRESENT, version=2, status=ResultStatus.ENTERED_IN_ERROR, signature=signature(Act.REJECT))
    assert after["Observation"]["status"] == after["DiagnosticReport"]["status"] == "entered-in-error"
    assert after["Observation"]["id"] == before["Observation"]["id"]
    assert after["Provenance"]["id"] != before["Provenance"]["id"]


@pytest.mark.parametrize("status", [ResultStatus.FINAL, ResultStatus.AMENDED])
def test_a_signed_result_is_not_written_without_its_signer(status: ResultStatus) -> None:
    """`final` is never claimed for what only a machine has said."""
    with pytest.raises(RenderingError, match="signer"):
        render_report(report_of(PRESENT, status=status))


def test_another_revision_is_another_observation_with_the_same_tracking_identifier() -> None:
    """Ids belong to (study, revision, model, version); the tracking UID ties revisions together."""
    first = report_of(PRESENT)
    second = replace(first, read=replace(first.read, revision=2))
    one, two = (
        json.loads(next(entry for entry in render_report(report) if entry.type == "Observation").text)
        for report in (first, second)
    )
    assert one["id"] != two["id"]
    assert one["identifier"] == two["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:2.25.555"}]


def test_narratives_are_well_formed_and_escaped() -> None:
    """Text from the scan and the settings cannot break out of the XHTML."""
    said = replace(PRESENT, limits=("a < b & c > d <script>alert(1)</script>",))
    for resource in rendered(said).values():
        root = ET.fromstring(resource["text"]["div"])
        assert root.tag == "{http://www.w3.org/1999/xhtml}div"
        assert {child.tag for child in root} == {"{http://www.w3.org/1999/xhtml}p"}
        assert "".join(root.itertext()).strip()


def test_the_patient_has_our_identifier_and_the_outside_ones() -> None:
    """The Patient UID is official and typed; issuers become systems, and stand by name as assigners."""
    patient = rendered(PRESENT)["Patient"]
    own, named, oid, bare = patient["identifier"]
    assert own["value"] == PATIENT.patient_uid
    assert own["system"].startswith("urn:oid:2.25.")
    assert own["type"]["coding"][0]["code"] == "PI"
    assert (named["value"], named["assigner"]["display"]) == ("P|1", "HOSP")
    assert named["system"] == issuer_system(INSTALLATION, "HOSP") != own["system"]
    assert oid["system"] == "urn:oid:1.2.3.4"
    assert bare == {"use": "usual", "value": "P3"}
    assert (patient["gender"], patient["birthDate"]) == ("female", "1867-11-07")


def test_an_unknown_patient_leaves_out_what_nobody_said() -> None:
    """An empty name, birth date and sex are no elements; nothing is made up."""
    bare = replace(PATIENT, name="", birth_date=None, sex="", identifiers=(Identifier("", "HOSP"),))
    patient = json.loads(render_study(INSTALLATION, replace(STUDY, patient=bare), INSTANCES)[0].text)
    assert not {"name", "gender", "birthDate"} & patient.keys()
    assert len(patient["identifier"]) == 1


def test_names_keep_their_writing_systems_apart() -> None:
    """Alphabetic, ideographic and phonetic groups become names of their own, each saying which it is."""
    latin, kanji, kana = human_names("Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert (latin["use"], latin["family"], latin["given"]) == ("official", "Yamada", ["Tarou"])
    assert (kanji["family"], kanji["given"], kanji["text"]) == ("山田", ["太郎"], "山田 太郎")
    assert [name["extension"][0]["valueCode"] for name in (latin, kanji, kana)] == ["ABC", "IDE", "SYL"]
    assert "extension" not in human_names("Curie^Marie")[0]
    assert human_names("^^^^") == []


@given(st.text(max_size=80))
def test_any_person_name_becomes_valid_fhir(name: str) -> None:
    """Whatever a scan calls its patient, the Patient is valid."""
    study = replace(STUDY, patient=replace(PATIENT, name=name))
    patient = json.loads(render_study(INSTALLATION, study, ())[0].text)
    get_fhir_model_class("Patient").model_validate(patient)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=64), st.none() | st.integers(-(2**40), 2**40))
def test_any_words_of_a_scan_become_valid_fhir(modality: str, accession: str, words: str, number: int | None) -> None:
    """What an operator typed into modality, accession number, issuer or descriptions never stops a study."""
    patient = replace(PATIENT, identifiers=(Identifier(accession, words),))
    study = replace(STUDY, patient=patient, modalities=(modality,), accession_number=accession, description=words)
    image = replace(
        INSTANCES[0], modality=modality, series_description=words, series_number=number, instance_number=number
    )
    for resource in render_study(INSTALLATION, study, (image,)):
        get_fhir_model_class(resource.type).model_validate(json.loads(resource.text))


def test_the_study_lists_its_series_and_images_in_order() -> None:
    """Series and images are numbered as in DICOM, whatever order they came in."""
    study = rendered(PRESENT)["ImagingStudy"]
    assert study["identifier"][0]["value"] == "urn:oid:2.25.10"
    assert study["identifier"][1]["value"] == "ACC 1"
    assert study["identifier"][1]["type"]["coding"][0]["code"] == "ACSN"
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (2, 3)
    assert [series["number"] for series in study["series"]] == [1, 2]
    assert [entry["uid"] for entry in study["series"][0]["instance"]] == ["2.25.10.1.1", "2.25.10.1.2"]
    assert study["started"] == "2026-03-04T05:06:07Z"


def test_odd_numbers_and_no_modality_still_make_a_valid_study() -> None:
    """DICOM allows negative numbers and FHIR does not; a series without modality is Other."""
    odd = instance(1, modality="", instance_number=-5)
    study = json.loads(render_study(INSTALLATION, replace(STUDY, started_at=None), (odd,))[1].text)
    assert study["series"][0]["modality"]["code"] == "OT"
    assert "number" not in study["series"][0]["instance"][0]
    assert "started" not in study


def test_provenance_names_the_images() -> None:
    """The images shown to the model are its sources, the key images among them marked."""
    entities = rendered(PRESENT)["Provenance"]["entity"]
    shown = {entry["what"]["identifier"]["value"]: entry["what"]["display"] for entry in entities[1:]}
    assert len(shown) == 3
    assert shown["urn:oid:2.25.10.1.2"] == "key image"


def test_what_can_be_searched_is_listed() -> None:
    """Status, codes, identifiers and date stand beside the text as they stand in it."""
    found = {resource.type: resource for resource in render_report(report_of(PRESENT))}
    observation = found["Observation"]
    assert observation.status == "preliminary"
    assert observation.codes == ("http://snomed.info/sct|393564001",)
    assert observation.identifiers == ("urn:dicom:uid|urn:oid:2.25.555",)
    assert observation.date == STUDY.started_at
    assert "|ACC 1" in found["ImagingStudy"].identifiers
    assert found["DiagnosticReport"].codes == ("http://loinc.org|18748-4",)


def test_a_code_of_a_scheme_without_uri_is_an_error() -> None:
    """A private coding scheme cannot be said in FHIR, and the message says which one it was."""
    with pytest.raises(RenderingError, match="99LOCAL"):
        render_report(report_of(replace(PRESENT, code=Code("99LOCAL", "1", "x"))))


def test_a_wrong_status_is_caught_with_path_value_and_value_set() -> None:
    """The models let `nonsense` pass; the table does not."""
    resource = rendered(PRESENT)["Observation"] | {"status": "nonsense"}
    with pytest.raises(RenderingError, match=r"Observation\.status is 'nonsense'.*ValueSet/observation-status"):
        validate(resource, json.dumps(resource))


def test_an_error_names_the_path_but_not_the_patient() -> None:
    """What is wrong with a Patient is said without quoting the Patient."""
    resource = rendered(PRESENT)["Patient"] | {"birthDate": "SECRET"}
    with pytest.raises(RenderingError, match=r"Patient\.birthDate") as caught:
        validate(resource, json.dumps(resource))
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unknown_element_is_an_error() -> None:
    """An element that R4 does not have is not let out."""
    resource = rendered(PRESENT)["Device"] | {"colour": "red"}
    with pytest.raises(RenderingError, match="colour"):
        validate(resource, json.dumps(resource))


def examples(test_data: Path) -> list[dict[str, Any]]:
    kinds = {kind for kind, _ in REQUIRED_VALUE_SETS if kind}
    files = sorted((test_data / "fhir_r4_examples").glob("*.json"))
    loaded = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [resource for resource in loaded if resource["resourceType"] in kinds]


def test_hl7s_own_examples_pass_the_same_gate(test_data: Path) -> None:
    """The gate refuses no official R4 4.0.1 example of the types that we write."""
    resources = examples(test_data)
    assert len(resources) > 60
    for resource in resources:
        validate(resource, json.dumps(resource))


def test_elements_have_the_shape_of_hl7s_examples(test_data: Path) -> None:
    """What we write stands where an official example of the type has it, but for a list of elements checked by hand."""
    shapes = {path for resource in examples(test_data) for path in paths(resource, resource["resourceType"])}
    # In the resources' R4 definitions, though none of the examples has them.
    defined = (
        "Device.manufacturer",
        "Device.deviceName",
        "Device.type",
        "Device.version",
        "Device.note",
        "DiagnosticReport.imagingStudy",
        "ImagingStudy.description",
        "Observation.device",
        "Patient.name.prefix",
        "Provenance.agent.role",
        "Provenance.entity.what.identifier",
        "Provenance.occurredDateTime",
    )
    written = {path for kind, resource in rendered(PRESENT).items() for path in paths(resource, kind)}
    assert {
        path for path in written - shapes if not f"{path}.".startswith(tuple(f"{entry}." for entry in defined))
    } == set()


def paths(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in {"text", "coding", "meta", "extension", "display"}:
                yield f"{path}.{name}"
                yield from paths(value, f"{path}.{name}")
    elif isinstance(node, list):
        for value in node:
            yield from paths(value, path)


def test_undetermined_without_probability_is_said_as_such() -> None:
    """A finding that nobody could decide has the value Undetermined and no made-up probability."""
    said = replace(ABSENT, code=NEOPLASM, presence=Presence.UNDETERMINED, probability=None, alternatives=())
    observation = rendered(said)["Observation"]
    assert observation["valueCodeableConcept"]["coding"][0]["code"] == "373068000"
    assert "component" not in observation


def test_instants_are_utc() -> None:
    """Times of other zones come out in UTC, marked so."""
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    study = replace(STUDY, started_at=dt.datetime(2026, 1, 1, 1, 0, tzinfo=zone))
    assert json.loads(render_study(INSTALLATION, study, INSTANCES)[1].text)["started"] == "2025-12-31T19:30:00Z"


def test_ids_never_change() -> None:
    """An id is a promise to whoever stored a link: these are pinned, for this namespace and these natural keys."""
    assert {resource.type: resource.id for resource in render_report(report_of(PRESENT))} == {
        "Patient": "f8ea68d5-3041-517e-bab3-a7e604c9fa50",
        "ImagingStudy": "69dc8b06-4d05-5496-a04a-df232f66c3c7",
        "Device": "b01d7dde-7f36-5750-a2f7-6b95be9a3ff2",
        "Observation": "50d4850c-79f7-5ca5-a948-13e019f12a92",
        "DiagnosticReport": "5745455f-c286-5e46-bb1d-6dd565f2e988",
        "Provenance": "545a4be3-a574-5c77-9895-a52d50e8a55f",
    }
