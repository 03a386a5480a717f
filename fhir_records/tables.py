"""Every table of the product.

The rows behind `fhir_records.model`'s records. The migrations lead to exactly this: a test compares them.
Instants are `timestamptz`. Enumerations are text with a check, so that a new state is a small migration.
"""

from __future__ import annotations

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fhir_records.model import (
    Consent,
    DeliveryState,
    InstanceKind,
    Priority,
    ReadState,
    ResultStatus,
    Role,
    Standing,
)


def _words(enum: type[StrEnum]) -> Enum:
    """A text column holding the enum's values, checked by the database."""
    return Enum(
        enum,
        native_enum=False,
        create_constraint=True,
        length=24,
        name=enum.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """The tables' registry, with names for constraints so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        int: Integer(),
        float: Double(),
        dt.datetime: DateTime(timezone=True),
        dt.date: Date(),
        dict[str, Any]: JSONB(),
        list[dict[str, Any]]: JSONB(),
        list[str]: ARRAY(Text()),
        list[float]: ARRAY(Double()),
        bytes: LargeBinary(),
        uuid.UUID: Uuid(),
        list[int]: ARRAY(BigInteger()),
        Consent: _words(Consent),
        InstanceKind: _words(InstanceKind),
        Standing: _words(Standing),
        ReadState: _words(ReadState),
        ResultStatus: _words(ResultStatus),
        DeliveryState: _words(DeliveryState),
        Priority: _words(Priority),
        Role: _words(Role),
    }


def _key() -> Mapped[int]:
    return mapped_column(BigInteger, primary_key=True, autoincrement=True)


def _now() -> Mapped[dt.datetime]:
    return mapped_column(server_default=func.now())


def _ref(target: str, **options: Any) -> Mapped[int]:
    return mapped_column(BigInteger, ForeignKey(target), index=True, **options)


class Installation(Base):
    """The one row that says which installation this is."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    namespace: Mapped[uuid.UUID]
    pseudonym_key: Mapped[bytes | None]  # secret: what pseudonyms and replaced UIDs are derived with
    created_at: Mapped[dt.datetime] = _now()


class Patient(Base):
    """A person. A provisional one stands for a study whose patient nobody has settled yet."""

    __tablename__ = "patient"

    id: Mapped[int] = _key()
    patient_uid: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(default="")
    birth_date: Mapped[dt.date | None]
    sex: Mapped[str] = mapped_column(default="")
    provisional: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    created_at: Mapped[dt.datetime] = _now()
    identifiers: Mapped[list[PatientIdentifier]] = relationship(
        order_by="PatientIdentifier.id", lazy="selectin", back_populates="patient"
    )


class PatientIdentifier(Base):
    """An identifier from outside that leads to a patient."""

    __tablename__ = "patient_identifier"
    __table_args__ = (
        # A provisional patient carries its identifier without owning it, so only the settled one is unique.
        Index(
            "uq_patient_identifier_settled", "value", "issuer", unique=True, postgresql_where=text("NOT provisional")
        ),
    )

    id: Mapped[int] = _key()
    patient_id: Mapped[int] = _ref("patient.id")
    value: Mapped[str] = mapped_column(index=True)
    issuer: Mapped[str] = mapped_column(default="")
    provisional: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    patient: Mapped[Patient] = relationship(back_populates="identifiers")


class ConsentStatement(Base):
    """What a patient was recorded to have said about training: append-only, the newest one counts."""

    __tablename__ = "consent_statement"

    id: Mapped[int] = _key()
    patient_id: Mapped[int] = _ref("patient.id")
    state: Mapped[Consent]
    said_by: Mapped[str]  # who said so: the patient, or who speaks for the patient
    recorded_by: Mapped[str]  # username, or "command line"
    recorded_at: Mapped[dt.datetime] = _now()


class ReviewExport(Base):
    """One export of reviewed cases: what left the record, when, and on whose word."""

    __tablename__ = "review_export"
    __table_args__ = (Index("ix_review_export_result_ids", "result_ids", postgresql_using="gin"),)

    id: Mapped[int] = _key()
    export_uid: Mapped[uuid.UUID] = mapped_column(unique=True)  # as the export's own report names it
    model: Mapped[str]
    asked_by: Mapped[str]
    exported_at: Mapped[dt.datetime]
    folder: Mapped[str]  # its name alone, not where it lay
    options: Mapped[dict[str, Any]]  # what it was asked for
    result_ids: Mapped[list[int]]  # of the results that are in it
    images: Mapped[int]
    refused: Mapped[int]  # images that were not let out


class Study(Base):
    """An imaging study, with what decides when it is complete."""

    __tablename__ = "study"
    __table_args__ = (Index("ix_study_newest", "first_seen_at", "id"),)  # the worklist's order

    id: Mapped[int] = _key()
    study_uid: Mapped[str] = mapped_column(unique=True)
    patient_id: Mapped[int] = _ref("patient.id")
    hold_reason: Mapped[str | None]
    accession_number: Mapped[str] = mapped_column(default="", index=True)
    description: Mapped[str] = mapped_column(default="")
    modalities: Mapped[list[str]] = mapped_column(default=list)
    started_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    priority: Mapped[Priority] = mapped_column(default=Priority.ROUTINE)
    source: Mapped[str]  # "dicom:AE" or "orthanc:NAME"
    caller: Mapped[str] = mapped_column(default="")  # calling AE title of the first object
    revision: Mapped[int] = mapped_column(default=0)
    routed_revision: Mapped[int] = mapped_column(default=0)  # the last one that routing has decided on
    first_seen_at: Mapped[dt.datetime] = _now()
    last_arrival_at: Mapped[dt.datetime] = _now()
    # When the first image not yet in a revision came; null: every image is in a revision.
    open_since: Mapped[dt.datetime | None] = mapped_column(index=True)
    # Calling AE titles that sent the images since then: the most patient of them decides how long is waited.
    open_callers: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    patient: Mapped[Patient] = relationship(lazy="joined", innerjoin=True)


class Instance(Base):
    """One stored SOP instance. Rows can be rebuilt from the files of the spool."""

    __tablename__ = "instance"
    __table_args__ = (
        Index("uq_instance_current", "sop_uid", unique=True, postgresql_where=text("standing = 'current'")),
        Index("ix_instance_series", "study_id", "series_uid", "instance_number"),
        Index("ix_instance_received", "received_at", "id"),
        Index("ix_instance_conflict", "id", postgresql_where=text("standing = 'conflict'")),
        Index("ix_instance_missing", "id", postgresql_where=text("missing_since IS NOT NULL")),
        Index("ix_instance_unhashed", "id", postgresql_where=text("sha256 = ''")),
        UniqueConstraint("file_key"),
    )

    id: Mapped[int] = _key()
    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("study.id"))  # `ix_instance_series` begins with it
    series_uid: Mapped[str]
    sop_uid: Mapped[str] = mapped_column(index=True)
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    kind: Mapped[InstanceKind]
    standing: Mapped[Standing]
    modality: Mapped[str] = mapped_column(default="")
    series_number: Mapped[int | None] = mapped_column(BigInteger)
    series_description: Mapped[str] = mapped_column(default="")
    instance_number: Mapped[int | None] = mapped_column(BigInteger)
    number_of_frames: Mapped[int] = mapped_column(default=1)
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    file_key: Mapped[str]
    sha256: Mapped[str] = mapped_column(default="")  # of the whole file; "": not hashed yet, nor are its pixels
    # Of the parts that decide what "the same object again" means, see dicom_listener.twins.
    demographics_sha256: Mapped[str] = mapped_column(default="")
    pixels_sha256: Mapped[str] = mapped_column(default="")
    size: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str]
    received_at: Mapped[dt.datetime] = _now()
    missing_since: Mapped[dt.datetime | None]  # its file was looked for then, and was not there
    study: Mapped[Study] = relationship()


class SeriesEquipment(Base):
    """What a series was made with (PS3.3 section C.7.5.1), as its first image says; none for a series that does not."""

    __tablename__ = "series_equipment"

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("study.id", ondelete="CASCADE"), primary_key=True)
    series_uid: Mapped[str] = mapped_column(primary_key=True)
    manufacturer: Mapped[str]
    model_name: Mapped[str]
    station_name: Mapped[str]
    device_serial_number: Mapped[str]


class ExpectedNumber(Base):
    """How many instances a study, or one of its series, is said to have. Only for studies that wait for the rest."""

    __tablename__ = "expected_number"

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("study.id", ondelete="CASCADE"), primary_key=True)
    series_uid: Mapped[str] = mapped_column(primary_key=True)  # "": the study as a whole
    instances: Mapped[int | None]  # Number of Study or Series Related Instances (PS3.4 section C.3.4)
    series: Mapped[int | None]  # Number of Study Related Series, of the study as a whole only
    source: Mapped[str]  # who said so: "objects", "pacs:NAME" or "orthanc:NAME"
    told_at: Mapped[dt.datetime] = _now()


class QuarantinedObject(Base):
    """Bytes that came and could not be stored, or not be indexed, as an object, with the reason."""

    __tablename__ = "quarantined_object"

    id: Mapped[int] = _key()
    file_key: Mapped[str] = mapped_column(unique=True)
    reason: Mapped[str]
    caller: Mapped[str] = mapped_column(default="")
    size: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[dt.datetime] = _now()


class AssociationLease(Base):
    """An association that is open now. A listener that dies stops renewing, and the lease runs out."""

    __tablename__ = "association_lease"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    caller: Mapped[str]
    address: Mapped[str]
    opened_at: Mapped[dt.datetime] = _now()
    expires_at: Mapped[dt.datetime] = mapped_column(index=True)


class AssociationStudy(Base):
    """A study that an open association has sent images of."""

    __tablename__ = "association_study"

    association_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("association_lease.id", ondelete="CASCADE"), primary_key=True
    )
    study_uid: Mapped[str] = mapped_column(primary_key=True, index=True)
    last_sent_at: Mapped[dt.datetime] = _now()


class Revision(Base):
    """A complete state of a study: the frozen list of its images."""

    __tablename__ = "revision"
    __table_args__ = (UniqueConstraint("study_id", "number"),)

    id: Mapped[int] = _key()
    study_id: Mapped[int] = _ref("study.id")
    number: Mapped[int]
    reason: Mapped[str] = mapped_column(default="")  # why it was judged complete
    arrived: Mapped[int | None]  # instances of the study that were here then, where a number was expected
    expected: Mapped[int | None]  # that number
    created_at: Mapped[dt.datetime] = _now()
    study: Mapped[Study] = relationship()


class RevisionInstance(Base):
    """One image of a revision."""

    __tablename__ = "revision_instance"

    revision_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("revision.id"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("instance.id"), primary_key=True, index=True)


class Step(Base):
    """A step that is done. Written with its effect and the next job in one transaction."""

    __tablename__ = "step"

    subject: Mapped[str] = mapped_column(primary_key=True)  # "study:12", "read:5", "result:7"
    revision: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    finished_at: Mapped[dt.datetime] = _now()


class Read(Base):
    """One model version's read of one revision."""

    __tablename__ = "read"
    __table_args__ = (UniqueConstraint("study_id", "revision", "model", "model_version"),)

    id: Mapped[int] = _key()
    study_id: Mapped[int] = _ref("study.id")
    revision: Mapped[int]
    model: Mapped[str]
    model_version: Mapped[str]
    state: Mapped[ReadState] = mapped_column(default=ReadState.QUEUED, index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None]
    next_attempt_at: Mapped[dt.datetime | None] = mapped_column(
        index=True
    )  # set while a failed one waits to be retried
    results_to: Mapped[list[str]] = mapped_column(default=list)
    routes: Mapped[list[str]] = mapped_column(default=list)  # names of the routes that asked for it
    priority: Mapped[Priority] = mapped_column(default=Priority.ROUTINE)
    queued_at: Mapped[dt.datetime] = _now()
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]
    study: Mapped[Study] = relationship()


def _within(path: str) -> Mapped[str | None]:
    """A value within `content`, kept beside it by the database: the whole is long, and too slow to count by."""
    return mapped_column(Computed(f"content #>> '{{{path}}}'", persisted=True))


class Result(Base):
    """An append-only document version of what a read found."""

    __tablename__ = "result"
    __table_args__ = (
        UniqueConstraint("read_id", "version"),
        # What models answered, in order of time: counted without a look at the rows.
        Index(
            "ix_result_answered",
            "created_at",
            postgresql_where=text("version = 1"),
            postgresql_include=["read_id", "label", "presence", "series_uid"],
        ),
    )

    id: Mapped[int] = _key()
    read_id: Mapped[int] = _ref("read.id")
    version: Mapped[int]
    status: Mapped[ResultStatus]
    content: Mapped[dict[str, Any]]  # finding or refusal, algorithm, images read: `fhir_records.store.results`
    label: Mapped[str | None] = _within("finding,label")  # the answer; null: refused
    presence: Mapped[str | None] = _within("finding,presence")
    series_uid: Mapped[str | None] = _within("images_read,0,series_uid")  # of the first image read
    act: Mapped[str | None] = _within("signature,act")  # null: no person has seen to it
    withdrawal: Mapped[str | None] = _within("signature,withdrawal")
    created_at: Mapped[dt.datetime] = _now()
    read: Mapped[Read] = relationship()


class SaliencyMap(Base):
    """Where in a key image the network saw what it answers; of all document versions of a read's result."""

    __tablename__ = "saliency_map"

    read_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("read.id"), primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1, in the key images' order
    series_uid: Mapped[str]
    sop_uid: Mapped[str]
    sop_class_uid: Mapped[str]
    frame: Mapped[int | None]
    label: Mapped[str]
    rows: Mapped[int]
    columns: Mapped[int]
    peak: Mapped[float]
    levels: Mapped[bytes]


class Segmentation(Base):
    """The images in which a read's model looked for what it outlines."""

    __tablename__ = "segmentation"

    read_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("read.id"), primary_key=True, autoincrement=False)
    rows: Mapped[int]
    columns: Mapped[int]
    images: Mapped[list[dict[str, Any]]]  # in their order in the patient: `fhir_records.store.outlines`


class SegmentMask(Base):
    """A segment on one of these images; of all document versions of a read's result that speak of it."""

    __tablename__ = "segment_mask"

    read_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("segmentation.read_id"), primary_key=True, autoincrement=False
    )
    segment: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # of the image, from 0
    bits: Mapped[bytes]


class ReadFigures(Base):
    """What a read was shown and said, in numbers that name nobody: for watching a model in use."""

    __tablename__ = "read_figures"
    __table_args__ = (Index("ix_read_figures_week", "model", "read_at"),)

    read_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("read.id"), primary_key=True, autoincrement=False)
    model: Mapped[str]
    model_version: Mapped[str]
    read_at: Mapped[dt.datetime]
    label: Mapped[str | None]  # the answer, in the model's own word; null: refused
    probability: Mapped[float | None]  # of the answer, 0 to 1
    refusal: Mapped[str | None]  # code of the refusal
    images: Mapped[int]  # that the network was shown
    seconds: Mapped[float]
    # Shares of pixels by brightness, and of images by distance from training: bins as in `inference.drift`.
    intensity: Mapped[list[float]]
    distances: Mapped[list[float]]


class ModelReference(Base):
    """The training images of a model version, in the bins of `read_figures`."""

    __tablename__ = "model_reference"

    model: Mapped[str] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(primary_key=True)
    intensity: Mapped[list[float]]
    distances: Mapped[list[float]]


class ShadowRead(Base):
    """What a version on trial said of a study that the active one has read. Never rendered, never delivered."""

    __tablename__ = "shadow_read"
    __table_args__ = (UniqueConstraint("read_id", "model", "version"),)

    id: Mapped[int] = _key()
    read_id: Mapped[int] = _ref("read.id")
    model: Mapped[str]
    version: Mapped[str]  # the one on trial
    label: Mapped[str | None]  # its answer; null: it refused, or failed
    probability: Mapped[float | None]  # of its answer, 0 to 1
    refusal: Mapped[str | None]  # code of its refusal
    error: Mapped[str | None]  # why it failed, in words without patient data
    agrees: Mapped[bool | None] = mapped_column(Boolean)  # with the active version's answer; null: it failed
    seconds: Mapped[float]
    created_at: Mapped[dt.datetime] = _now()
    read: Mapped[Read] = relationship()


class Document(Base):
    """Bytes rendered once from a result."""

    __tablename__ = "document"
    __table_args__ = (UniqueConstraint("result_id", "kind", "variant"),)

    id: Mapped[int] = _key()
    result_id: Mapped[int] = _ref("result.id")
    kind: Mapped[str]
    variant: Mapped[str] = mapped_column(default="")
    sop_uid: Mapped[str] = mapped_column(unique=True)
    sop_class_uid: Mapped[str]
    content: Mapped[bytes]
    sha256: Mapped[str]
    # Why the conformance gate holds it; empty: it passed. An administrator may let it go, and says why.
    faults: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    released_by: Mapped[str | None]
    release_reason: Mapped[str | None]
    released_at: Mapped[dt.datetime | None]
    withdrawn_at: Mapped[dt.datetime | None]  # since when it may not be sent any more
    withdrawal: Mapped[str] = mapped_column(default="", server_default=text("''"))  # why: a `Withdrawal`
    created_at: Mapped[dt.datetime] = _now()
    result: Mapped[Result] = relationship()


class Delivery(Base):
    """One document on its way to one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("document_id", "destination"),
        Index("ix_delivery_due", "next_attempt_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_delivery_withdrawal_open", "next_attempt_at", postgresql_where=text("state = 'withdrawal open'")),
        Index("ix_delivery_unconfirmed", "confirm_at", postgresql_where=text("state = 'delivered'")),
        Index("ix_delivery_under_way", "destination", postgresql_where=text("sending_since IS NOT NULL")),
    )

    id: Mapped[int] = _key()
    document_id: Mapped[int] = _ref("document.id")
    destination: Mapped[str]
    state: Mapped[DeliveryState] = mapped_column(default=DeliveryState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime | None]
    last_error: Mapped[str | None]
    delivered_at: Mapped[dt.datetime | None]
    # An attempt ended without an answer after the object was sent: it may be there all the same.
    maybe_there: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    withdraws: Mapped[int | None] = mapped_column(  # the delivery that this one, a rejection note, takes back
        BigInteger, ForeignKey("delivery.id"), index=True
    )
    instead_of: Mapped[int | None] = (
        mapped_column(  # the delivery of the same report in a class that is not taken there
            BigInteger, ForeignKey("delivery.id"), index=True
        )
    )
    withdrawn_at: Mapped[dt.datetime | None]
    withdrawn_by: Mapped[str | None]  # username, where a person said that it is done
    sending_since: Mapped[dt.datetime | None]  # set while an attempt is under way
    confirm_at: Mapped[dt.datetime | None]  # delivered, and this is when it is next asked whether it is kept there
    confirm_attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    not_kept: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # times that it was lost there
    fell_back_at: Mapped[dt.datetime | None]  # since when it goes to the fallback destination, too
    created_at: Mapped[dt.datetime] = _now()
    document: Mapped[Document] = relationship()


class DestinationQueue(Base):
    """How a destination is doing: paused by a person, or left alone after failures in a row."""

    __tablename__ = "destination_queue"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[dt.datetime | None]
    paused_by: Mapped[str | None]
    failures: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # in a row, of its being away
    not_before: Mapped[dt.datetime | None]  # left alone until then
    last_error: Mapped[str | None]


class RefusedClass(Base):
    """A SOP class of reports that a destination did not take, and when it last said so."""

    __tablename__ = "refused_class"

    destination: Mapped[str] = mapped_column(primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(primary_key=True)
    refused_at: Mapped[dt.datetime]


class StorageCommitment(Base):
    """A storage commitment that was asked for (PS3.4 Annex J): which delivery, under which Transaction UID."""

    __tablename__ = "storage_commitment"

    transaction_uid: Mapped[str] = mapped_column(primary_key=True)
    delivery_id: Mapped[int] = _ref("delivery.id")
    requested_at: Mapped[dt.datetime]
    reported_at: Mapped[dt.datetime | None]
    failure_reason: Mapped[int | None]  # PS3.3 section C.14.1.1; null: committed, or not reported yet


class DeliveryAttempt(Base):
    """What one attempt to deliver came to."""

    __tablename__ = "delivery_attempt"

    id: Mapped[int] = _key()
    delivery_id: Mapped[int] = _ref("delivery.id")
    started_at: Mapped[dt.datetime]
    finished_at: Mapped[dt.datetime]
    outcome: Mapped[str]  # "delivered", "refused", "unavailable"
    status: Mapped[int | None]  # DIMSE status (PS3.7 annex C), or HTTP status
    detail: Mapped[str] = mapped_column(default="")


class RoutingDecision(Base):
    """Where a revision goes, and why: every rule with what it came to, as it was decided."""

    __tablename__ = "routing_decision"
    __table_args__ = (UniqueConstraint("study_id", "revision"),)

    id: Mapped[int] = _key()
    study_id: Mapped[int] = _ref("study.id")
    revision: Mapped[int]
    decided_at: Mapped[dt.datetime]
    explanation: Mapped[dict[str, Any]]  # `workflow.router.Decision.to_json`
    study: Mapped[Study] = relationship()


class RuleTrial(Base):
    """Rules tried over past studies, and what they would have changed."""

    __tablename__ = "rule_trial"

    id: Mapped[int] = _key()
    rules: Mapped[str]  # TOML: `[[route]]` tables
    studies: Mapped[int]  # the newest so many
    asked_by: Mapped[str]
    asked_at: Mapped[dt.datetime] = _now()
    finished_at: Mapped[dt.datetime | None]
    error: Mapped[str | None]  # why the rules could not be tried
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSONB)  # `workflow.rule_trials.Trial.to_json`


class Forward(Base):
    """The images of one revision on their way to one node, as they were received."""

    __tablename__ = "forward"
    __table_args__ = (
        UniqueConstraint("study_id", "revision", "destination"),
        Index("ix_forward_due", "next_attempt_at", postgresql_where=text("state = 'waiting'")),
    )

    id: Mapped[int] = _key()
    study_id: Mapped[int] = _ref("study.id")
    revision: Mapped[int]
    destination: Mapped[str]
    routes: Mapped[list[str]] = mapped_column(default=list)  # names of the routes that asked for it
    priority: Mapped[Priority] = mapped_column(default=Priority.ROUTINE)
    state: Mapped[DeliveryState] = mapped_column(default=DeliveryState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)  # in vain, since an image last arrived
    next_attempt_at: Mapped[dt.datetime | None]
    last_error: Mapped[str | None]
    delivered_at: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime] = _now()
    study: Mapped[Study] = relationship()


class ForwardedImage(Base):
    """One image on its way to one node. It goes there once, whatever later revisions hold."""

    __tablename__ = "forwarded_image"

    instance_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("instance.id"), primary_key=True)
    destination: Mapped[str] = mapped_column(primary_key=True)
    forward_id: Mapped[int] = _ref("forward.id")
    state: Mapped[DeliveryState] = mapped_column(default=DeliveryState.WAITING)
    status: Mapped[int | None]  # DIMSE status (PS3.7 annex C), or HTTP status
    detail: Mapped[str] = mapped_column(default="")
    sent_at: Mapped[dt.datetime | None]
    instance: Mapped[Instance] = relationship()


class FhirResource(Base):
    """A FHIR resource: the JSON text that is served, and what it can be searched by."""

    __tablename__ = "fhir_resource"
    __table_args__ = (
        Index("ix_fhir_resource_identifiers", "identifiers", postgresql_using="gin"),
        Index("ix_fhir_resource_codes", "codes", postgresql_using="gin"),
        Index("ix_fhir_resource_order", "type", "last_updated", "id"),
    )

    type: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(default=1)
    text: Mapped[str]
    status: Mapped[str] = mapped_column(default="")
    codes: Mapped[list[str]] = mapped_column(default=list)  # "system|code"
    identifiers: Mapped[list[str]] = mapped_column(default=list)  # "system|value"
    date: Mapped[dt.datetime | None] = mapped_column(index=True)
    patient_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("patient.id"), index=True)
    study_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("study.id"), index=True)
    last_updated: Mapped[dt.datetime] = _now()


class OrthancCursor(Base):
    """How far the changes of an Orthanc have been followed."""

    __tablename__ = "orthanc_cursor"

    name: Mapped[str] = mapped_column(primary_key=True)
    last_change: Mapped[int] = mapped_column(BigInteger, default=0)
    error: Mapped[str | None]
    updated_at: Mapped[dt.datetime] = _now()


class User(Base):
    """A person who may log in."""

    __tablename__ = "app_user"

    id: Mapped[int] = _key()
    username: Mapped[str] = mapped_column(unique=True)
    display_name: Mapped[str] = mapped_column(default="")
    role: Mapped[Role]
    person_name: Mapped[str] = mapped_column(default="", server_default=text("''"))  # as in DICOM
    identification: Mapped[str] = mapped_column(default="", server_default=text("''"))
    password_hash: Mapped[str]
    active: Mapped[bool] = mapped_column(Boolean, default=True, server_default=text("true"))
    created_at: Mapped[dt.datetime] = _now()


class WebSession(Base):
    """A log-in that has not ended. The cookie's value is kept as a hash only."""

    __tablename__ = "web_session"

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = _ref("app_user.id")
    csrf_token: Mapped[str]
    created_at: Mapped[dt.datetime] = _now()
    last_seen_at: Mapped[dt.datetime] = _now()
    expires_at: Mapped[dt.datetime] = mapped_column(index=True)
    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class LoginFailure(Base):
    """A failed log-in, kept a while to slow guessing down across processes."""

    __tablename__ = "login_failure"

    id: Mapped[int] = _key()
    username: Mapped[str] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(index=True)
    at: Mapped[dt.datetime] = _now()


class Token(Base):
    """A bearer token for programs, kept as a hash only."""

    __tablename__ = "token"

    id: Mapped[int] = _key()
    name: Mapped[str] = mapped_column(unique=True)
    scope: Mapped[str]  # SMART v2 scopes, parted by spaces
    token_sha256: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("app_user.id"), index=True)  # for user/ scopes
    created_at: Mapped[dt.datetime] = _now()
    expires_at: Mapped[dt.datetime | None]
    revoked_at: Mapped[dt.datetime | None]
    last_used_at: Mapped[dt.datetime | None]


class AuditEvent(Base):
    """Who did what, when: append-only."""

    __tablename__ = "audit_event"

    id: Mapped[int] = _key()
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now(), index=True)
    actor: Mapped[str]
    action: Mapped[str]
    outcome: Mapped[str] = mapped_column(default="success")
    study_uid: Mapped[str | None] = mapped_column(index=True)
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
