"""What is known about a patient's studies: frozen records, and the states they can be in.

Everything that flows between the parts of Wetread is one of these. Instants are aware datetimes in UTC; `date` and
`datetime` values copied from DICOM are already resolved to that. UIDs are DICOM UIDs unless the name says otherwise.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Presence(StrEnum):
    """The answer to "is it there?", said exactly once for each finding (PS3.16 CID 240)."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"  # nobody knows: the study was not read


class ReadState(StrEnum):
    """How far the read of one revision by one model has come."""

    QUEUED = "queued"
    READING = "reading"
    READ = "read"
    REFUSED = "refused"
    FAILED = "failed"


class StudyState(StrEnum):
    """What the worklist says of a study; derived from arrivals and reads, never stored."""

    ARRIVING = "arriving"  # images may still come
    QUEUED = "queued"
    READING = "reading"
    READ = "read"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_ROUTED = "not routed"  # complete, and no route asks for a read


class ResultStatus(StrEnum):
    """Status of a result's document version (FHIR R4 observation-status)."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    ENTERED_IN_ERROR = "entered-in-error"


class Act(StrEnum):
    """What a person did with a result."""

    ACCEPT = "accept"  # it is so
    CORRECT = "correct"  # it is otherwise: another answer, a note, a marked region
    REJECT = "reject"  # it is taken back, and nothing stands in its place


class DeliveryState(StrEnum):
    """Where one document stands on its way to one destination."""

    WAITING = "waiting"  # not yet accepted; `next_attempt_at` says when it is tried again
    REFUSED = "refused"  # the destination answered with a failure that trying again will not mend
    FILTERED = "filtered"  # the destination is not to get it: its kind, or a newer version goes instead
    DELIVERED = "delivered"  # the destination answered with the success status
    CONFIRMED = "confirmed"  # storage commitment, or found there again
    WITHDRAWAL_OPEN = "withdrawal open"  # rejected or superseded, and not yet known to be taken back there
    WITHDRAWN = "withdrawn"  # taken back there


class Standing(StrEnum):
    """What an instance's bytes are to the study (design, section 7, "same object again")."""

    CURRENT = "current"
    VERSION = "version"  # the same pixels with other demographics; kept, not read
    CONFLICT = "conflict"  # other pixels under the same SOP Instance UID; kept apart, shown


class Withdrawal(StrEnum):
    """Why a document is taken back."""

    REJECTED = "rejected"  # a person found it wrong
    SUPERSEDED = "superseded"  # a newer version takes its place
    WRONG_PATIENT = "wrong patient"  # it is about somebody else


class Consent(StrEnum):
    """What is known of a patient's will that images and answers train models."""

    UNASKED = "unasked"
    GIVEN = "given"
    REFUSED = "refused"  # or taken back: an opt-out


class InstanceKind(StrEnum):
    """Whether an instance can start a read."""

    IMAGE = "image"
    OTHER = "other"  # SR, KO, PR, SEG, PDF, waveform: kept, never read
    OWN = "own"  # written by Wetread, come back by some door


class Priority(StrEnum):
    """Request priority (FHIR R4 request-priority, as DICOM's STAT / HIGH / MEDIUM)."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


class Role(StrEnum):
    """What a person may do on the pages."""

    RADIOLOGIST = "radiologist"
    CLINICIAN = "clinician"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 section 8)."""

    scheme: str  # coding scheme designator: SCT, DCM, UCUM, LN
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Identifier:
    """A patient identifier from outside, with the authority that issued it."""

    value: str  # PatientID
    issuer: str  # IssuerOfPatientID, or the caller's configured issuer; "" where nobody said


@dataclass(frozen=True, slots=True)
class Patient:
    """A person, under Wetread's own identifier."""

    id: int
    patient_uid: str  # 12 digits and a check digit, ISO 7064 MOD 11,10
    name: str  # PatientName as in DICOM: component groups parted by "=", components by "^"
    birth_date: dt.date | None
    sex: str  # M, F, O or "" (PS3.3 PatientSex)
    identifiers: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image, or one frame of it, that a statement rests on."""

    series_uid: str
    sop_uid: str
    sop_class_uid: str
    frame: int | None = None  # from 1; None: a single-frame image


@dataclass(frozen=True, slots=True)
class Instance:
    """One stored SOP instance, as the index knows it."""

    id: int
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: InstanceKind
    standing: Standing
    modality: str
    series_number: int | None
    series_description: str
    instance_number: int | None
    number_of_frames: int
    rows: int | None
    columns: int | None
    file_key: str  # relative to the spool's root
    sha256: str  # of the whole file, hex
    size: int  # bytes
    received_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Equipment:
    """A scanner, by the attributes of PS3.3 section C.7.5.1; "" where the images do not say."""

    manufacturer: str = ""  # Manufacturer
    model_name: str = ""  # Manufacturer's Model Name
    station_name: str = ""  # Station Name
    device_serial_number: str = ""  # Device Serial Number

    def __bool__(self) -> bool:
        return any((self.manufacturer, self.model_name, self.station_name, self.device_serial_number))


@dataclass(frozen=True, slots=True)
class Study:
    """One imaging study, as the newest objects describe it."""

    id: int
    study_uid: str
    patient: Patient
    accession_number: str
    description: str
    modalities: tuple[str, ...]
    started_at: dt.datetime | None  # StudyDate and StudyTime, in UTC
    revision: int  # 0 until first complete
    priority: Priority
    state: StudyState
    hold_reason: str | None  # why the patient's identity waits for a person, or None
    source: str  # "dicom:AE" or "orthanc:NAME", by which door it came first
    first_seen_at: dt.datetime
    last_arrival_at: dt.datetime
    image_count: int = 0
    series_count: int = 0


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """The calibrated probability of one of the answers that a model can give."""

    label: str  # the model's own word, as in its contract
    code: Code
    presence: Presence
    probability: float  # 0 to 1
    site: Code | None = None  # where that would be; None: where the finding is


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle that a person marked on an image. Pixels of the frame, from its top left corner."""

    image: ImageRef
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs, as it is written into the documents."""

    username: str
    name: str  # as in DICOM: component groups parted by "=", components by "^"
    display_name: str  # for people
    organization: str
    identification: Code | None  # a code for the person, such as a licence number in its scheme


@dataclass(frozen=True, slots=True)
class SegmentVolume:
    """One thing that a model outlined, as it is spoken of; where it lies is in `Outlines`."""

    label: str  # the model's own word, as in its contract
    wording: str  # in plain words
    code: Code  # what it is (PS3.16 CID 7151)
    category: Code  # what kind of thing that is (PS3.16 CID 7150)
    site: Code
    colour: tuple[int, int, int]  # red, green, blue, 0 to 255: how it is drawn
    volume_mm3: float  # its voxels, each as thick as the slices are apart; to a tenth
    tracking_id: str
    tracking_uid: str  # stable across revisions (PS3.16 TID 4108)


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about a study: this, at this site, is present or absent, with this probability."""

    label: str  # the model's own word for its answer
    code: Code  # the question: what was looked for
    presence: Presence  # the answer
    probability: float | None  # calibrated probability that the answer is right, 0 to 1; None where nothing was read
    site: Code
    key_images: tuple[ImageRef, ...]  # most telling first
    limits: tuple[str, ...]  # what the reader must know, a sentence each
    alternatives: tuple[ClassProbability, ...]  # every answer the model weighed, most probable first
    tracking_id: str
    tracking_uid: str  # stable across revisions (PS3.16 TID 4108)
    region: Region | None = None  # where a person sees it
    author: Signer | None = None  # the person whose word it is; None: the model's
    segments: tuple[SegmentVolume, ...] = ()  # what the model outlined; empty where a person's word stands


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a study was not read: a coded answer, never silence."""

    code: str  # word of `inference.contract`, e.g. "modality", "no-images", "anatomy"
    sentence: str  # "Not read, because …", for people
    question: Code  # what would have been looked for
    site: Code


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The model version that made a result (PS3.16 TID 4019; FHIR Device)."""

    name: str  # as in the bundle
    version: str
    title: str  # for people
    manufacturer: str
    device_uid: str  # "2.25.…", renewed when the weights change
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Signature:
    """What a person did with the version of a result before this one."""

    act: Act
    signer: Signer
    signed_at: dt.datetime
    signed_version: int  # the document version that the person saw
    changed: bool  # whether the answer (code or presence) is another one than before
    machine_said: str  # the model's own answer in words
    note: str = ""  # the person's words
    withdrawal: str = ""  # why it is taken back, where it was rejected: a `Withdrawal`


@dataclass(frozen=True, slots=True)
class Result:
    """What a read found: an append-only document version."""

    id: int
    read_id: int
    version: int  # document version, from 1
    status: ResultStatus
    finding: Finding | None  # exactly one of finding and refusal is given
    refusal: Refusal | None
    algorithm: Algorithm
    images_read: tuple[ImageRef, ...]  # the images shown to the model, in reading order
    created_at: dt.datetime
    signature: Signature | None = None  # None: no person has seen to it

    @property
    def is_signed(self) -> bool:
        """Whether a person stands behind what it says."""
        return self.status in (ResultStatus.FINAL, ResultStatus.AMENDED)

    @property
    def author(self) -> Signer | None:
        """The person whose own finding it is; None where the model's answer stands."""
        return self.finding.author if self.finding else None


@dataclass(frozen=True, slots=True)
class SaliencyMap:
    """Where in a key image the network saw what it answers: a small picture, to be stretched over the whole frame."""

    image: ImageRef
    label: str  # the class that it speaks for, in the model's own word
    rows: int  # of the small picture
    columns: int
    peak: float  # evidence (logit) that 255 stands for; 0 stands for none, or for evidence against
    levels: bytes  # rows x columns, row by row


@dataclass(frozen=True, slots=True)
class SegmentMask:
    """A segment on one image."""

    segment: int  # its number among `Finding.segments` of the model's own result, from 1
    place: int  # of the image in `Outlines.images`, from 0
    bits: bytes  # zlib of the mask's bits, rows x columns, row by row, the first in the highest bit


@dataclass(frozen=True, slots=True)
class Outlines:
    """What a model outlined in a series, on the images' own pixels."""

    rows: int
    columns: int
    images: tuple[ImageRef, ...]  # that it looked at, in their order in the patient
    masks: tuple[SegmentMask, ...]  # of images with something in them, by segment and place


@dataclass(frozen=True, slots=True)
class Read:
    """One model version's read of one revision of a study."""

    id: int
    study_id: int
    revision: int
    model: str
    model_version: str
    state: ReadState
    attempts: int
    error: str | None  # for people, without patient data
    results_to: tuple[str, ...]  # names of destinations
    priority: Priority
    queued_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Installation:
    """What is particular to this installation and stands in everything that it writes."""

    namespace: uuid.UUID  # random, made once; every UID and id that we write is derived from it
    statement: str  # the site's statement, in every rendering
    organization: str = ""
    signed_is_final: bool = False  # whether a signed SR calls itself FINAL, or still PRELIMINARY (PS3.3 C.17.2)


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """A result that another one takes the place of, and its report as it was written."""

    read: Read
    version: int
    series_uid: str  # of its structured report
    sop_uid: str
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that a rendering needs to say one result; made once, so that all renderings say the same."""

    installation: Installation
    study: Study
    read: Read
    result: Result
    instances: tuple[Instance, ...]  # the revision's image instances, in order of series and instance number
    destination: str = ""  # variant: "" for the common one
    replaces: tuple[EarlierResult, ...] = ()  # what a person's or a newer machine's word takes the place of
    superseded_at: dt.datetime | None = None  # since when newer images have a result of their own


@dataclass(frozen=True, slots=True)
class FhirResource:
    """A FHIR resource as it is stored and served: the JSON text and what can be searched for."""

    type: str
    id: str
    text: str  # UTF-8 JSON, served as it is
    status: str = ""
    codes: tuple[str, ...] = ()  # "system|code" each
    identifiers: tuple[str, ...] = ()  # "system|value" each
    date: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes rendered once from a result, and sent as they are."""

    id: int
    result_id: int
    kind: str  # "dicom_sr"; the others are in `renderings.kinds`
    variant: str
    sop_uid: str
    sop_class_uid: str
    content: bytes
    sha256: str
    faults: tuple[str, ...] = ()  # what the conformance gate found
    released: bool = False  # an administrator has said why it may leave all the same

    @property
    def is_held(self) -> bool:
        """Whether the conformance gate keeps it from leaving."""
        return bool(self.faults) and not self.released

    withdrawn_at: dt.datetime | None = None  # since when it may not be sent any more
    withdrawal: str = ""  # why: a `Withdrawal`


@dataclass(frozen=True, slots=True)
class Delivery:
    """One document on its way to one destination."""

    id: int
    document_id: int
    destination: str
    state: DeliveryState
    attempts: int
    next_attempt_at: dt.datetime | None
    last_error: str | None
    delivered_at: dt.datetime | None
    withdrawn_at: dt.datetime | None = None

    @property
    def is_held(self) -> bool:
        """Whether it waits for a person's signature, and not for a time."""
        return self.state is DeliveryState.WAITING and self.next_attempt_at is None


@dataclass(frozen=True, slots=True)
class Forward:
    """The images of one revision on their way to one node."""

    id: int
    study_id: int
    revision: int
    destination: str
    routes: tuple[str, ...]
    priority: Priority
    state: DeliveryState
    attempts: int  # in vain, since an image last arrived
    next_attempt_at: dt.datetime | None
    last_error: str | None
    delivered_at: dt.datetime | None
    images: int = 0
    arrived: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class User:
    """A person who may log in."""

    id: int
    username: str
    display_name: str
    role: Role
    active: bool
    person_name: str = ""  # as in DICOM, "Curie^Marie^^Dr"; "": the display name stands in
    identification: str = ""  # the person's number in the site's scheme (`[signing] identifier_scheme`)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit trail."""

    action: str
    actor: str
    outcome: str = "success"
    study_uid: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
