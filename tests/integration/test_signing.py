"""People sign results: what becomes of the record, the structured report, the FHIR resources and the deliveries."""

from __future__ import annotations

import threading
from pathlib import Path

import highdicom.sr as hd
import pytest
from pydicom.filebase import DicomBytesIO
from sqlalchemy import select

from fhir_records import jobs, signing, tables
from fhir_records.database import Database
from fhir_records.errors import NotAllowed, NotFound, Outdated, QueryError
from fhir_records.model import Act, ImageRef, Presence, Region, ResultStatus, Role, User
from fhir_records.signing import SigningRequest
from fhir_records.store import deliveries
from tests import seed
from tests.integration.signed_results import CURIE, NOW, Bench
from tests.peers import dciodvfy


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """A record without studies."""
    return Bench(database, tmp_path)


def test_an_accepted_finding_is_final_and_verified(bench: Bench, tmp_path: Path) -> None:
    """The machine's answer stands as it is; the report says who verified it and when, and names the one before."""
    first = bench.read()
    result = bench.sign(Act.ACCEPT)
    assert (result.version, result.status, result.author) == (2, ResultStatus.FINAL, None)
    assert bench.latest() == result
    ds = bench.report(result.id)
    assert (ds.VerificationFlag, ds.CompletionFlag, ds.PreliminaryFlag) == ("VERIFIED", "COMPLETE", "PRELIMINARY")
    (observer,) = ds.VerifyingObserverSequence
    assert str(observer.VerifyingObserverName) == "Curie^Marie^^Dr"
    assert observer.VerifyingOrganization == "Hôpital Curie"
    assert observer.VerificationDateTime == "20261120120100.000000+0000"
    assert observer.VerifyingObserverIdentificationCodeSequence[0].CodeValue == "12345"
    before = bench.report(first)
    (study,) = ds.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == before.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert ds.SOPInstanceUID != before.SOPInstanceUID
    path = tmp_path / "signed.dcm"
    ds.save_as(path)
    assert dciodvfy(path).errors == ()
    (observation,) = bench.resource("Observation")
    assert observation["status"] == "final"
    assert observation["meta"]["security"][0]["code"] == "AIAST"  # type: ignore[index]
    assert observation["performer"][0]["display"] == "Dr Marie Curie"  # type: ignore[index]


def test_a_corrected_finding_is_the_persons(bench: Bench, tmp_path: Path) -> None:
    """Another answer, a note, a region: a person observer, no algorithm, no probability; the AI's answer is named."""
    bench.read()
    uid = f"{bench.study_uid}.1"
    region = Region(ImageRef(uid, f"{uid}.2", seed.MR), 10, 20, 30, 40)
    result = bench.sign(Act.CORRECT, label="meningioma", note="Dural tail.", region=region)
    assert result.status is ResultStatus.FINAL
    assert result.finding is not None and result.finding.code == seed.MENINGIOMA
    assert result.finding.probability is None and result.author == CURIE
    ds = bench.report(result.id)
    path = tmp_path / "corrected.dcm"
    ds.save_as(path)
    assert dciodvfy(path).errors == ()
    (group,) = hd.srread(path).content.get_planar_roi_measurement_groups()
    assert group.roi.value.tolist() == [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
    names = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in group[0].ContentSequence}
    assert str(names["Person Observer Name"].PersonName) == "Curie^Marie^^Dr"
    assert not {"Algorithm Name", "Probability"} & set(names)
    texts = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert any("Glioma of the brain: present, probability 93 %" in text for text in texts)
    assert any("Dural tail." in text for text in texts)
    (observation,) = bench.resource("Observation")
    assert observation["status"] == "final"
    assert observation["code"]["coding"][0]["code"] == seed.MENINGIOMA.value  # type: ignore[index]
    assert observation["meta"]["security"][0]["code"] == "CLINAST"  # type: ignore[index]
    assert "component" not in observation
    provenances = bench.resource("Provenance")
    agents = [agent for entry in provenances for agent in entry["agent"]]  # type: ignore[attr-defined]
    assert sorted(agent["type"]["coding"][0]["code"] for agent in agents) == ["assembler", "assembler", "author"]


def test_a_present_finding_corrected_to_none_says_no_everywhere(bench: Bench) -> None:
    """Answering "no neoplasm" in place of a glioma turns presence in the SR and in FHIR."""
    bench.read()
    result = bench.sign(Act.CORRECT, label="notumor")
    assert result.finding is not None and result.finding.presence is Presence.ABSENT
    assert "no neoplasm" in bench.report(result.id).SeriesDescription.lower()
    (observation,) = bench.resource("Observation")
    assert observation["valueCodeableConcept"]["coding"][0]["code"] == "272519000"  # type: ignore[index]


def test_only_what_was_final_is_amended(bench: Bench) -> None:
    """A note amends, another answer corrects, and only after a signature; a rejection is entered in error."""
    bench.read()
    bench.sign(Act.ACCEPT)
    bench.sign(Act.CORRECT, version=2, note="See the report of last year.")
    (observation,) = bench.resource("Observation")
    assert observation["status"] == "amended"
    bench.sign(Act.CORRECT, version=3, label="notumor")
    (observation,) = bench.resource("Observation")
    assert observation["status"] == "corrected"
    bench.sign(Act.REJECT, version=4, note="Motion.")
    (observation,) = bench.resource("Observation")
    (report,) = bench.resource("DiagnosticReport")
    assert observation["status"] == report["status"] == "entered-in-error"
    assert "Rejected by Dr Marie Curie" in str(observation["text"])
    bench.sign(Act.ACCEPT, version=5)
    (observation,) = bench.resource("Observation")
    assert observation["status"] == "amended"


def test_of_two_people_one_wins_and_the_other_is_told(bench: Bench) -> None:
    """Both saw version 1 and sign at the same moment: one version 2, and one who learns whose it is."""
    bench.read()
    barrier = threading.Barrier(8)
    told: list[str] = []
    won: list[int] = []

    def sign(number: int) -> None:
        signer = type(CURIE)(f"p{number}", f"P{number}^A", f"Dr P{number}", "", None)
        request = SigningRequest(bench.study_uid, bench.read_id, 1, Act.ACCEPT if number % 2 else Act.REJECT)
        barrier.wait()
        try:
            with bench.database.session() as session:
                won.append(signing.sign(session, request, signer, NOW).version)
        except Outdated as error:
            told.append(str(error))

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [2]
    assert len(told) == 7
    signature = bench.latest().signature
    assert signature is not None and all(signature.signer.display_name in words for words in told)
    with bench.database.session() as session:
        rows = session.scalars(select(tables.AuditEvent.action).where(tables.AuditEvent.action.like("result %"))).all()
    assert len(rows) == 1


def test_a_signature_releases_what_waited_for_it(bench: Bench) -> None:
    """Under `after_signing` nothing leaves before; then the signed report goes, and the unsigned one never."""
    bench.releases["pacs"] = "after_signing"
    bench.read()
    bench.deliver()
    assert bench.sent == [] and bench.deliveries()[0].is_held
    result = bench.sign(Act.ACCEPT)
    bench.deliver()
    assert bench.states() == ["filtered", "delivered"]
    (sent,) = bench.sent
    assert hd.srread(DicomBytesIO(sent)).SOPInstanceUID == bench.report(result.id).SOPInstanceUID


def test_new_images_after_signing_change_nothing_signed(bench: Bench) -> None:
    """The newer read is preliminary beside the signed one; only a person's signature takes its place."""
    bench.read()
    signed = bench.sign(Act.ACCEPT)
    old_read = bench.read_id
    bench.deliver()
    newer = bench.read_again(absent=True, new_images=True)
    assert {entry["status"] for entry in bench.resource("Observation")} == {"final", "preliminary"}
    assert not any("tag" in entry["meta"] for entry in bench.resource("Observation"))  # type: ignore[operator]
    assert "PredecessorDocumentsSequence" not in bench.report(newer)
    with pytest.raises(Outdated, match="Newer images"):
        bench.sign(Act.REJECT, version=2, read_id=old_read)
    result = bench.sign(Act.ACCEPT)
    (study,) = bench.report(result.id).PredecessorDocumentsSequence
    named = {ref.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for ref in s.ReferencedSOPSequence}
    assert bench.report(signed.id).SOPInstanceUID in named
    tagged = [entry for entry in bench.resource("Observation") if "tag" in entry["meta"]]  # type: ignore[operator]
    assert [entry["status"] for entry in tagged] == ["final"]
    assert "Superseded" in str(tagged[0]["text"])


def test_an_unsigned_result_is_superseded_by_the_next_machines(bench: Bench) -> None:
    """A read of newer images takes the place of an unsigned one, which says so, and names it."""
    first = bench.read()
    second = bench.read_again(new_images=True)
    (study,) = bench.report(second).PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == bench.report(first).SOPInstanceUID
    old, new = sorted(bench.resource("Observation"), key=lambda entry: "tag" not in entry["meta"])  # type: ignore[operator]
    assert old["meta"]["tag"][0]["code"] == "obsolete"  # type: ignore[index]
    assert new["extension"][0]["valueReference"]["reference"] == f"Observation/{old['id']}"  # type: ignore[index]


def test_not_read_takes_no_findings_place(bench: Bench) -> None:
    """A refusal of newer images leaves the finding of the earlier ones as it is."""
    bench.read()
    bench.deliver()
    bench.read_again(refusal=seed.refused_ct(), new_images=True)
    assert not any("tag" in entry["meta"] for entry in bench.resource("Observation"))  # type: ignore[operator]
    assert bench.states()[0] == "delivered"


def test_a_refusal_is_seen_but_not_corrected(bench: Bench) -> None:
    """Accepting "not read" releases it; it stays `cancelled`, and there is no finding to correct."""
    bench.releases["pacs"] = "after_signing"
    bench.read(refusal=seed.refused_ct())
    with pytest.raises(QueryError, match="no finding to correct"):
        bench.sign(Act.CORRECT, note="Well.")
    bench.sign(Act.ACCEPT)
    bench.deliver()
    assert len(bench.sent) == 1
    assert bench.resource("Observation")[0]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("act", "more", "words"),
    [
        (Act.CORRECT, {}, "none was given"),
        (Act.CORRECT, {"label": "glioma"}, "none was given"),
        (Act.CORRECT, {"label": "abscess"}, "allowed are: glioma, meningioma"),
        (Act.ACCEPT, {"label": "notumor"}, "belongs to a correction"),
        (Act.REJECT, {"note": "x" * 2001}, "at most 2000"),
        (Act.CORRECT, {"region": Region(ImageRef("1", "1.9", seed.MR), 0, 0, 9, 9)}, "not one of those"),
    ],
)
def test_what_cannot_be_signed_is_refused_in_words(bench: Bench, act: Act, more: dict[str, object], words: str) -> None:
    """The error names what was wrong and what is allowed; nothing is written."""
    bench.read()
    with pytest.raises(QueryError, match=words):
        bench.sign(act, **more)
    assert bench.latest().version == 1


def test_a_region_lies_inside_its_image(bench: Bench) -> None:
    """A box beyond the edge, of no size, or of no number is refused with the image's size."""
    bench.read()
    uid = f"{bench.study_uid}.1"
    image = ImageRef(uid, f"{uid}.1", seed.MR)
    for box in ((100, 0, 29, 9), (-1, 0, 5, 5), (0, 0, 0, 5), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)):
        with pytest.raises(QueryError, match="128 columns and 128 rows"):
            bench.sign(Act.CORRECT, region=Region(image, *box))
    with pytest.raises(QueryError, match="frame"):
        bench.sign(Act.CORRECT, region=Region(ImageRef(uid, f"{uid}.1", seed.MR, 2), 0, 0, 5, 5))


def test_a_late_rendering_of_an_outdated_version_goes_nowhere(bench: Bench) -> None:
    """Where a person signs before the first version is rendered, only the signed one is sent and served."""
    bench.read()
    with bench.database.session() as session:
        study = seed.add_study(session, 2)
        read = seed.add_read(session, study, jobs.ReadState.READ)
        first = seed.add_result(session, read, finding=seed.glioma(study)).id
        seed.write_images(bench.root, session, study.id)
        bench.study_uid, bench.read_id = study.study_uid, read.id
    sent_before = len(bench.deliveries())
    bench.sign(Act.ACCEPT)
    bench.render(first)
    assert len(bench.deliveries()) == sent_before + 1
    assert [entry["status"] for entry in bench.resource("DiagnosticReport")].count("final") == 1
    with bench.database.session() as session:
        assert deliveries.find_document(session, first, "dicom_sr", "") is None


def test_only_a_radiologist_signs() -> None:
    """Others, and closed accounts, are told who may."""
    for role, active in ((Role.CLINICIAN, True), (Role.ADMIN, True), (Role.RADIOLOGIST, False)):
        with pytest.raises(NotAllowed, match="radiologist"):
            signing.signer_of(User(1, "x", "X", role, active), "", "")
    signer = signing.signer_of(User(1, "x", "Dr ^Marie=Curie", Role.RADIOLOGIST, True, "", "7"), "H", "NPI")
    assert signer.name == "Dr  Marie Curie" and signer.identification is not None


def test_a_read_of_another_study_is_not_signed(bench: Bench) -> None:
    """The study's UID and the read's number must fit."""
    bench.read()
    bench.study_uid = "1.2.3"
    with pytest.raises(NotFound):
        bench.sign(Act.ACCEPT)
