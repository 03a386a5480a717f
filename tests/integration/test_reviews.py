"""Reviewed cases that leave as training data: whose, with which labels, without whom."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread
from sqlalchemy import select

from fhir_records import signing, tables
from fhir_records.database import Database
from fhir_records.errors import NotFound, Outdated, QueryError, SettingsError
from fhir_records.model import Act, Consent, ImageRef, ReadState, Region
from fhir_records.pseudonyms import Pseudonyms
from fhir_records.renderings.typeface import font
from fhir_records.store import consent, review_exports
from fhir_records.store.consent import ConsentPolicy
from tests import seed
from tests.integration.signed_results import CURIE, NOW, Bench
from workflow.review_export import Exported, ExportRequest, ExportReviews
from workflow.review_recall import recalled


class Site:
    """A record whose studies people sign, and its exports."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database, self.root = database, root
        self.spool = root / "spool"
        self.spool.mkdir()
        self.number = 0

    def case(self, act: Act | None, *, absent: bool = False, said: Consent | None = None, **more: object) -> Bench:
        """A study, read and seen to."""
        self.number += 1
        bench = Bench(self.database, self.spool)
        with self.database.session() as session:
            study = seed.add_study(session, self.number, name=f"Okonkwo{self.number:03}^Chidinma{self.number:03}")
            bench.study_uid, bench.study_id = study.study_uid, study.id
            seed.write_images(self.spool, session, study.id)
            if said:
                uid = study.patient.patient_uid
                consent.record_consent(session, uid, said, said_by="the patient", recorded_by="admin")
        bench.read_again(absent=absent)
        if act:
            bench.sign(act, **more)  # type: ignore[arg-type]
        return bench

    def export(self, name: str = "out", policy: ConsentPolicy = ConsentPolicy.OPT_IN, **asked: object) -> Exported:
        """An export of what there is."""
        return self.exporter(policy)(ExportRequest(self.root / name, include_unchanged=True, **asked))  # type: ignore[arg-type]

    def exporter(self, policy: ConsentPolicy = ConsentPolicy.OPT_IN) -> ExportReviews:
        """What makes it."""
        return ExportReviews(self.database, lambda key: self.spool / key, policy, lambda: NOW, "0.0-test")

    def labels(self, name: str = "out") -> list[dict[str, str]]:
        """The lines of an export's table."""
        with (self.root / name / "labels.csv").open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    def patient_uid(self, bench: Bench) -> str:
        """Of the study's patient."""
        with self.database.session() as session:
            return session.get_one(tables.Study, bench.study_id).patient.patient_uid

    def say(self, bench: Bench, state: Consent) -> consent.PatientConsent:
        """The study's patient says so."""
        with self.database.session() as session:
            return consent.record_consent(
                session, self.patient_uid(bench), state, said_by="the patient", recorded_by="admin"
            )


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    """A record without studies."""
    return Site(database, tmp_path)


def test_only_who_agreed_is_exported(site: Site) -> None:
    """With opt-in the asked who said yes; with opt-out also the unasked; never who refused."""
    for said in (Consent.GIVEN, None, Consent.REFUSED):
        site.case(Act.ACCEPT, said=said)
    assert site.export("in").people == 1
    assert site.export("in2").passed == {"the patient's consent does not allow it": 2}
    assert site.export("out", ConsentPolicy.OPT_OUT).people == 2


def test_the_newest_word_counts_and_names_the_exports(site: Site) -> None:
    """Consent taken back keeps the next export empty, and says in which export the patient is already."""
    bench = site.case(Act.ACCEPT, said=Consent.GIVEN)
    made = site.export().export
    stands = site.say(bench, Consent.REFUSED)
    assert [export.export_uid for export in stands.exports] == [made.export_uid]
    assert stands.is_to_be_followed
    assert [line.state for line in stands.statements] == [Consent.REFUSED, Consent.GIVEN]
    with pytest.raises(QueryError, match="consent does not allow"):
        site.export("again")
    assert not (site.root / "again").exists()
    with site.database.session() as session:
        entry = session.scalars(select(tables.AuditEvent).where(tables.AuditEvent.action.like("consent%refused"))).one()
    assert entry.detail["exports"] == [str(made.export_uid)]
    assert site.patient_uid(bench) not in json.dumps(entry.detail)


def test_consent_is_somebodys_and_about_somebody(site: Site) -> None:
    """Nobody named, no such patient, a patient who is not settled, and "unasked" are refused."""
    bench = site.case(None)
    with site.database.session() as session:
        uid = site.patient_uid(bench)
        with pytest.raises(QueryError, match="who said so"):
            consent.record_consent(session, uid, Consent.GIVEN, said_by=" ", recorded_by="admin")
        with pytest.raises(QueryError, match="given or refused"):
            consent.record_consent(session, uid, Consent.UNASKED, said_by="she", recorded_by="admin")
        with pytest.raises(NotFound):
            consent.record_consent(session, "1", Consent.GIVEN, said_by="she", recorded_by="admin")
        held = seed.add_study(session, 99, hold_reason="Other birth date.")
        with pytest.raises(QueryError, match="not settled"):
            consent.record_consent(session, held.patient.patient_uid, Consent.GIVEN, said_by="she", recorded_by="admin")


def test_labels_say_no_more_than_is_known(site: Site) -> None:
    """Nothing there: every slice; a mark: that image; a finding: its key images; a finding nobody marked: none."""
    given = {"said": Consent.GIVEN}
    absent = site.case(Act.ACCEPT, absent=True, **given)
    site.case(Act.ACCEPT, **given)
    marked = site.case(None, **given)
    uid = f"{marked.study_uid}.1"
    region = Region(ImageRef(uid, f"{uid}.3", seed.MR), 10, 20, 30, 40)
    marked.sign(Act.CORRECT, label="meningioma", region=region)
    site.case(Act.CORRECT, label="notumor", **given)
    site.case(Act.CORRECT, absent=True, label="glioma", **given)
    done = site.export()
    lines = site.labels()
    found = sorted((line["label"], line["basis"]) for line in lines)
    assert found == [
        *[("glioma", "key image")] * 2,
        ("meningioma", "marked"),
        *[("notumor", "whole study")] * 6,
    ]
    (mark,) = [line for line in lines if line["basis"] == "marked"]
    assert [float(mark[side]) for side in ("left", "top", "width", "height")] == [10, 20, 30, 40]
    assert done.passed == {"the person sees something where the model saw nothing, and marked no image": 1}
    assert len({line["person"] for line in lines}) == done.people == 4
    assert absent.study_uid not in (site.root / "out" / "labels.csv").read_text()


def test_what_was_rejected_or_is_somebody_elses_stays(site: Site) -> None:
    """A rejected result has no label; one about another patient keeps the whole study back."""
    site.case(Act.REJECT, said=Consent.GIVEN)
    wrong = site.case(Act.REJECT, said=Consent.GIVEN, wrong_patient=True)
    wrong.read_again(new_images=True)
    wrong.sign(Act.ACCEPT)
    site.case(None, said=Consent.GIVEN)
    site.case(Act.ACCEPT, said=Consent.GIVEN)
    assert site.export().passed == {
        "the result was rejected, and nobody said what is right instead": 1,
        "somebody said that a result is about another patient": 1,
    }


def test_without_being_asked_only_what_people_changed(site: Site) -> None:
    """Answers that were only accepted need --include-unchanged; a date leaves out what was signed before."""
    site.case(Act.ACCEPT, said=Consent.GIVEN)
    site.case(Act.CORRECT, said=Consent.GIVEN, label="notumor")
    done = site.exporter()(ExportRequest(site.root / "changed"))
    assert (done.people, done.by_label) == (1, {"notumor": 3})
    with pytest.raises(QueryError, match="No case"):
        site.export("late", since=NOW + dt.timedelta(days=1))


def test_nothing_of_a_person_is_in_the_folder(site: Site) -> None:
    """No name, number, date, accession or UID of the studies, and none of who signed, is in any byte that left."""
    for _ in range(2):
        site.case(Act.ACCEPT, said=Consent.GIVEN)
    site.export()
    secrets = [b"okonkwo", b"chidinma", b"pid00", b"pid1", b"acc00", b"1961", b"19610503", b"20261120", b"083000"]
    secrets += [b"1.2.826.0.1.3680043", b"curie", b"t1 axial", b"mr head", str(site.spool).lower().encode()]
    with site.database.session() as session:
        secrets += [uid.encode() for uid in session.scalars(select(tables.Patient.patient_uid))]
    files = [path for path in (site.root / "out").rglob("*") if path.is_file()]
    assert len(files) == 2 * 4 + 3
    for path in files:
        content = path.read_bytes().lower()
        assert not [secret for secret in secrets if secret in content], path.name
        assert path.stat().st_mode & 0o777 == 0o600
    assert (site.root / "out").stat().st_mode & 0o777 == 0o700
    ds = dcmread(next((site.root / "out" / "dicom").iterdir()))
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert str(ds.PatientName) == ds.PatientID == site.labels()[0]["person"] or len(site.labels()) > 1


def test_two_exports_agree(site: Site) -> None:
    """The same image has the same name, and the same person the same pseudonym, in every export of a site."""
    site.case(Act.ACCEPT, said=Consent.GIVEN)
    site.export("one")
    site.export("two")
    assert site.labels("one") == site.labels("two")
    first, second = (
        {path.name: path.read_bytes() for path in (site.root / n / "dicom").iterdir()} for n in ("one", "two")
    )
    assert first == second


def test_the_export_is_in_the_record(site: Site) -> None:
    """A row with its results, and a line in the trail that names nobody."""
    bench = site.case(Act.ACCEPT, said=Consent.GIVEN)
    done = site.export()
    with site.database.session() as session:
        (row,) = review_exports.exports(session)
        event = session.scalars(
            select(tables.AuditEvent).where(tables.AuditEvent.action == "reviewed cases exported")
        ).one()
    assert row == done.export
    assert row.result_ids == (bench.latest().id,)
    assert (row.images, row.folder) == (2, "out")
    assert event.detail["export"] == str(row.export_uid)


def test_images_with_text_stay(site: Site) -> None:
    """An image in which text is found is left out with its reason, and can be looked at; the others of the case go."""
    bench = site.case(Act.ACCEPT, absent=True, said=Consent.GIVEN)
    path = site.spool / f"{bench.study_uid}.1.2.dcm"
    ds = dcmread(path)
    picture = Image.fromarray((ds.pixel_array / 4).astype(np.uint8)).resize((384, 384))
    ImageDraw.Draw(picture).text((8, 8), "OKONKWO^CHIDINMA", fill=255, font=font(20))
    ds.Rows = ds.Columns = 384
    ds.PixelData = (np.asarray(picture).astype(np.uint16) * 4).tobytes()
    ds.save_as(path)
    burnt = site.spool / f"{bench.study_uid}.1.3.dcm"
    ds = dcmread(burnt)
    ds.BurnedInAnnotation = "YES"
    ds.save_as(burnt)
    done = site.export(show_refused=site.root / "look")
    assert len(site.labels()) == 1
    assert done.refused == {
        "Text was found in its pixels.": 1,
        "Its header says that text is burnt in (Burned In Annotation).": 1,
    }
    report = json.loads((site.root / "out" / "export.json").read_text())
    assert len(report["refused_images"]) == 2
    assert all(line["image"].startswith("2.25.") for line in report["refused_images"])
    (shown,) = (site.root / "look").glob("*.png")
    assert shown.stem in [line["image"] for line in report["refused_images"] if line["reason"].startswith("Text")]
    assert ((site.root / "look").stat().st_mode & 0o777, shown.stat().st_mode & 0o777) == (0o700, 0o600)
    with Image.open(shown) as opened:
        red = np.asarray(opened)[..., 0].astype(int) - np.asarray(opened)[..., 1] > 100
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    times = red.shape[0] / 384
    assert rows[0] <= 12 * times and 24 * times <= rows[-1] <= 60 * times and columns[-1] > 150 * times
    with site.database.session() as session:
        (row,) = review_exports.exports(session)
    assert row.options["show_refused"] is True


def test_pictures_of_text_never_lie_in_the_export(site: Site) -> None:
    """A folder that is there, that is the export's, or that lies in it is refused before anything is written."""
    site.case(Act.ACCEPT, said=Consent.GIVEN)
    (site.root / "there").mkdir()
    for folder, why in (("there", "is there already"), ("out", "in the export"), ("out/look", "in the export")):
        with pytest.raises(SettingsError, match=why):
            site.export(show_refused=site.root / folder)
    assert sorted(path.name for path in site.root.iterdir()) == ["spool", "there"]


def test_pictures_of_text_are_shown_where_nothing_is_left(site: Site) -> None:
    """Where every image is kept out, the export is not made, and the pictures say why."""
    bench = site.case(Act.ACCEPT, absent=True, said=Consent.GIVEN)
    for path in site.spool.glob(f"{bench.study_uid}.1.*.dcm"):
        ds = dcmread(path)
        picture = Image.fromarray((ds.pixel_array / 4).astype(np.uint8)).resize((384, 384))
        ImageDraw.Draw(picture).text((8, 8), "OKONKWO^CHIDINMA", fill=255, font=font(20))
        ds.Rows = ds.Columns = 384
        ds.PixelData = (np.asarray(picture).astype(np.uint16) * 4).tobytes()
        ds.save_as(path)
    with pytest.raises(QueryError, match="Text was found"):
        site.export(show_refused=site.root / "look")
    assert len(list((site.root / "look").glob("*.png"))) == 3
    assert not (site.root / "out").exists()


def test_heads_can_stay(site: Site) -> None:
    """With --skip-heads, stacks of the head and those of nobody knows what do not leave."""
    site.case(Act.ACCEPT, said=Consent.GIVEN)
    with pytest.raises(QueryError, match="1: its images are of a head"):
        site.export(skip_heads=True)


def test_few_images_of_a_study_without_a_finding(site: Site) -> None:
    """At most so many as asked for."""
    site.case(Act.ACCEPT, absent=True, said=Consent.GIVEN)
    site.export(per_study=2)
    assert len(site.labels()) == 2


def test_who_decides_otherwise_meanwhile_stops_it(site: Site) -> None:
    """A refusal, or a rejection, while the files are written: nothing gets its name, nothing is in the record."""
    acts: list[Callable[[Bench], object]] = [
        lambda bench: site.say(bench, Consent.REFUSED),
        lambda bench: bench.sign(Act.REJECT, version=2),
    ]
    for number, act in enumerate(acts):
        bench = site.case(Act.ACCEPT, said=Consent.GIVEN)

        def meanwhile(done: int, total: int, act: Callable[[Bench], object] = act, bench: Bench = bench) -> None:
            if done == total:
                act(bench)

        with pytest.raises(Outdated):
            site.exporter()(ExportRequest(site.root / f"out{number}", include_unchanged=True), meanwhile)
        assert [path.name for path in site.root.iterdir()] == ["spool"]
    with site.database.session() as session:
        assert review_exports.exports(session) == ()


def test_a_folder_is_never_written_over(site: Site) -> None:
    """An output that is there is refused before anything is looked at."""
    site.case(Act.ACCEPT, said=Consent.GIVEN)
    (site.root / "out").mkdir()
    with pytest.raises(SettingsError, match="is there already"):
        site.export()


def test_the_model_is_named_where_there_are_several(site: Site) -> None:
    """One export holds one model's labels; without a name, the only model is meant."""
    bench = site.case(Act.ACCEPT, said=Consent.GIVEN)
    with site.database.session() as session:
        study = session.get_one(tables.Study, bench.study_id)
        read = tables.Read(
            study_id=study.id, revision=1, model="other", model_version="1", state=ReadState.READ, queued_at=NOW
        )
        session.add(read)
        session.flush()
        seed.add_result(session, read, finding=replace(seed.glioma(study), label="blob"))
        other = read.id
    assert site.export("one").export.model == "brain_mr_tumour"
    with site.database.session() as session:
        signing.sign(session, signing.SigningRequest(bench.study_uid, other, 1, Act.ACCEPT), CURIE, NOW)
    with pytest.raises(QueryError, match="brain_mr_tumour, other"):
        site.export("two")
    assert site.export("two", model="other").by_label == {"blob": 2}
    with pytest.raises(QueryError, match="Nobody has signed"):
        site.export("three", model="third")


def test_two_people_who_differ_teach_nothing(site: Site) -> None:
    """A second signer with another answer keeps the case back; whoever corrects himself, or agrees, does not."""
    other = replace(CURIE, username="laue")
    disputed = site.case(Act.ACCEPT, said=Consent.GIVEN)
    disputed.sign(Act.CORRECT, version=2, label="meningioma", signer=other)
    corrected = site.case(Act.ACCEPT, said=Consent.GIVEN)
    corrected.sign(Act.CORRECT, version=2, label="meningioma")
    agreed = site.case(Act.ACCEPT, said=Consent.GIVEN)
    agreed.sign(Act.CORRECT, version=2, note="I see it, too.", signer=other)
    done = site.export()
    assert done.passed == {"two people who signed it gave different answers": 1}
    assert done.people == 2


def test_what_changed_after_the_export_is_recalled(site: Site) -> None:
    """Consent taken back, a rejection and another answer are; what stands is not; another site's export is unknown."""
    kept, refused, rejected, amended = (site.case(Act.ACCEPT, said=Consent.GIVEN) for _ in range(4))
    export_uid = str(site.export().export.export_uid)
    with site.database.session() as session:
        before = recalled(session, export_uid, ConsentPolicy.OPT_IN)
    assert before.asked and not before.people and not before.images
    site.say(refused, Consent.REFUSED)
    rejected.sign(Act.REJECT, version=2)
    amended.sign(Act.CORRECT, version=2, label="meningioma")
    with site.database.session() as session:
        now = recalled(session, export_uid, ConsentPolicy.OPT_IN)
        pseudonyms = Pseudonyms(review_exports.pseudonym_key(session))
        with pytest.raises(NotFound, match="no export"):
            recalled(session, "of another site", ConsentPolicy.OPT_IN)
    kept_as, refused_as, rejected_as, amended_as = (
        pseudonyms.person(site.patient_uid(case)) for case in (kept, refused, rejected, amended)
    )
    why: dict[str, set[str]] = {}
    for line in site.labels():
        why.setdefault(line["person"], set()).add(now.why(line["person"], Path(line["path"]).stem))
    assert why == {
        kept_as: {""},
        refused_as: {"the patient's consent does not allow it"},
        rejected_as: {"the result was rejected, and nobody said what is right instead"},
        amended_as: {"a radiologist has signed something else since"},
    }
