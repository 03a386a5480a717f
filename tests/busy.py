"""A record in which all has happened that a page can show, for those who look at the pages. Nobody in here exists."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from fhir_records import audit, signing, tables
from fhir_records.database import Database
from fhir_records.model import (
    Act,
    AuditEntry,
    Code,
    DeliveryState,
    ImageRef,
    InstanceKind,
    Region,
    Signer,
    Standing,
    Withdrawal,
)
from fhir_records.renderings import kinds
from fhir_records.store import destinations, withdrawals
from tests import routed, seed
from tests.integration import sent_objects
from tests.unit.dicom_listener.objects import as_file

CURIE = Signer("curie", "Curie^Marie^^Dr", "Dr Marie Curie", "Hôpital Curie", Code("NPI", "12345", "Dr Marie Curie"))
SATURDAY_NIGHT = dt.datetime(2026, 11, 21, 22, 10, tzinfo=routed.ZONE)
REFUSED_KIND = "The PACS answered 0122: it takes no objects of this kind."
KINDS = (
    (kinds.SECONDARY_CAPTURE, 812_000),
    (kinds.PARAMETRIC_MAP, 131_000),
    (kinds.KEY_OBJECTS, 2_400),
    (kinds.ENCAPSULATED_PDF, 96_000),
)


@dataclass(frozen=True, slots=True)
class Busy:
    """The studies, by what they show, and the numbers that addresses need."""

    studies: dict[str, str]  # word → Study Instance UID
    report: tuple[str, int]  # Study Instance UID, document
    foreign_report: tuple[str, int]  # Study Instance UID, instance
    broken_report: tuple[str, int]  # the same of one that cannot be read
    trials: tuple[int, int, int]  # one with an outcome, one with faults, one under way


def fill(database: Database, spool: Path) -> Busy:
    """Make all of it."""
    uids = routed.some_studies(database)
    routed.route_all(database, spool, SATURDAY_NIGHT)
    trials = _try_rules(database, spool)
    with database.session() as session:
        made = seed.every_state(session, after=10)
        studies = {word: study.study_uid for word, study in made.items()} | {"routed": uids[0]}
        for study in made.values():
            seed.write_images(spool, session, study.id)
        seed.write_images(
            spool, session, session.scalars(select(tables.Study.id).order_by(tables.Study.id)).first() or 0
        )
        unsigned = seed.read_study(session, 31, delivery=DeliveryState.WAITING)
        report = _with_everything(session, spool, unsigned)
        studies["unsigned"] = unsigned.study_uid
        foreign, broken = _objects_from_elsewhere(session, spool, unsigned)
        for number, act in enumerate((Act.ACCEPT, Act.CORRECT, Act.REJECT), start=32):
            signed = seed.read_study(session, number)
            seed.write_images(spool, session, signed.study_id)
            _sign(session, signed, act)
            studies[act.value] = signed.study_uid
        _gate(session, seed.read_study(session, 40, delivery=DeliveryState.REFUSED))
        _kept_apart(session)
        _trail(session)
    return Busy(studies, report, (unsigned.study_uid, foreign), (unsigned.study_uid, broken), trials)


def _with_everything(session: Session, spool: Path, seeded: seed.Seeded) -> tuple[str, int]:
    """Real images, a real report, maps, and one document of each kind on its way to two destinations."""
    study = session.get_one(tables.Study, seeded.study_id)
    assert seeded.read_id and seeded.result_id and seeded.document_id
    seed.add_maps(session, study, seeded.read_id)
    evidence = seed.write_images(spool, session, study.id)
    content = seed.rendered_report(session, seeded.result_id, evidence)
    document = session.get_one(tables.Document, seeded.document_id)
    document.content, document.sha256 = content, hashlib.sha256(content).hexdigest()
    states = (DeliveryState.DELIVERED, DeliveryState.CONFIRMED, DeliveryState.FILTERED, DeliveryState.REFUSED)
    for (kind, size), state in zip(KINDS, states, strict=True):
        row = tables.Document(
            result_id=seeded.result_id,
            kind=kind,
            variant="",
            sop_uid=f"2.25.{seeded.result_id}{size}",
            sop_class_uid="1.2",
            content=bytes(size),
            sha256="0" * 64,
        )
        session.add(row)
        session.flush()
        refused = REFUSED_KIND if state is DeliveryState.REFUSED else None
        session.add(
            tables.Delivery(
                document_id=row.id,
                destination="teleradiology-north",
                state=state,
                attempts=1,
                last_error=refused,
                delivered_at=seed.NOW if state in (DeliveryState.DELIVERED, DeliveryState.CONFIRMED) else None,
            )
        )
    session.flush()
    return seeded.study_uid, seeded.document_id


def _objects_from_elsewhere(session: Session, spool: Path, seeded: seed.Seeded) -> tuple[int, int]:
    """A PDF, an ECG, and two reports of somebody else's, the second one broken; the reports' numbers."""
    numbers = []
    whole, broken = sent_objects.basic_text_report(), sent_objects.basic_text_report()
    broken.SOPInstanceUID = f"{seeded.study_uid}.9.4"
    del broken.ConceptNameCodeSequence, broken.ValueType, broken.ContentSequence
    for place, ds in enumerate((sent_objects.pdf(), sent_objects.ecg(), whole, broken), start=1):
        name = f"{ds.SOPInstanceUID}.dcm"
        (spool / name).write_bytes(as_file(ds))
        row = tables.Instance(
            study_id=seeded.study_id,
            series_uid=f"{seeded.study_uid}.9",
            sop_uid=ds.SOPInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            kind=InstanceKind.OTHER,
            standing=Standing.CURRENT,
            modality=ds.Modality,
            series_number=9,
            series_description="From elsewhere",
            instance_number=place,
            file_key=name,
            sha256="0" * 64,
            size=(spool / name).stat().st_size,
            source="dicom:CT1",
            received_at=seed.NOW,
        )
        session.add(row)
        session.flush()
        numbers.append(row.id)
    return numbers[-2], numbers[-1]


def _sign(session: Session, seeded: seed.Seeded, act: Act) -> None:
    uid = f"{seeded.study_uid}.1"
    region = Region(ImageRef(uid, f"{uid}.2", seed.MR), 68, 46, 24, 22)
    assert seeded.read_id is not None
    wanted = signing.SigningRequest(
        seeded.study_uid,
        seeded.read_id,
        1,
        act,
        label="meningioma" if act is Act.CORRECT else "",
        note="" if act is Act.ACCEPT else "Dural tail; extra-axial. Compared with the study of 2024.",
        region=region if act is Act.CORRECT else None,
    )
    signing.sign(session, wanted, CURIE, seed.NOW + dt.timedelta(hours=2))
    if act is not Act.ACCEPT:
        why = Withdrawal.REJECTED if act is Act.REJECT else Withdrawal.SUPERSEDED
        assert seeded.result_id is not None
        (delivery_id,) = withdrawals.withdraw(session, [seeded.result_id], why, seed.NOW + dt.timedelta(hours=2))
        session.get_one(tables.Delivery, delivery_id).last_error = "To be deleted there by hand."


def _gate(session: Session, seeded: seed.Seeded) -> None:
    document = session.get_one(tables.Document, seeded.document_id)
    document.kind = kinds.SECONDARY_CAPTURE
    document.faults = [
        "Rows is missing; its type is 1.",
        'PatientSex is "W"; it may be F, M or O.',
    ]


def _kept_apart(session: Session) -> None:
    images = session.scalars(select(tables.Instance).where(tables.Instance.kind == InstanceKind.IMAGE).limit(2)).all()
    images[0].standing = Standing.CONFLICT
    images[1].missing_since = seed.NOW
    session.add(tables.QuarantinedObject(file_key="q/1", reason="No SOP Instance UID.", caller="CT1", size=12000))
    session.add(tables.OrthancCursor(name="archive", last_change=7, error="It does not answer."))
    session.add(tables.OrthancCursor(name="research", last_change=412))
    destinations.pause(session, "teleradiology-north", "admin", seed.NOW)
    queue = session.get(tables.DestinationQueue, "pacs") or tables.DestinationQueue(name="pacs")
    queue.failures, queue.last_error = 5, "The PACS does not answer."
    session.add(queue)
    read = session.scalars(select(tables.Read).order_by(tables.Read.id).limit(1)).one()
    seed.shadow_read(session, read.id)
    session.execute(
        text(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts)"
            " VALUES ('default', 'render_result', '{\"result_id\": 7}', 'failed', 3)"
        )
    )
    session.execute(update(tables.Read).where(tables.Read.error.is_not(None)).values(attempts=3))


def _trail(session: Session) -> None:
    for action, outcome, detail in (
        ("logged in", "success", {}),
        ("log-in failed", "failure", {"address": "10.0.0.9"}),
        ("association rejected", "failure", {"calling_ae": "UNKNOWN", "reason": "calling AE title not recognized"}),
        ("held object sent", "success", {"document_id": 12, "reason": "The PACS wants it so, says its vendor."}),
    ):
        audit.record(session, AuditEntry(action=action, actor="curie", outcome=outcome, detail=detail))


def _try_rules(database: Database, spool: Path) -> tuple[int, int, int]:
    with database.session() as session:
        rows = [
            tables.RuleTrial(rules=rules, studies=100, asked_by="admin", asked_at=seed.NOW)
            for rules in (
                routed.RULES.replace("brain|head", "brain|head|knee"),
                routed.RULES.replace("patient.age >= 18", "patient.aeg >= 18"),
                routed.RULES,
            )
        ]
        session.add_all(rows)
        session.flush()
        numbers = tuple(row.id for row in rows)
    done, wrong, under_way = numbers
    for number in (done, wrong):
        routed.trier(database, spool)(number)
    return done, wrong, under_way
