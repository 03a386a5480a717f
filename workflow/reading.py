"""A queued read becomes a result: the model's answer, put into the record's words."""

from __future__ import annotations

import base64
import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import BundleError, ModelFailed
from fhir_records.identities import log_id, name_uid
from fhir_records.jobs import request_rendering
from fhir_records.model import (
    Algorithm,
    AuditEntry,
    ClassProbability,
    Code,
    Finding,
    ImageRef,
    Installation,
    Instance,
    Outlines,
    Presence,
    ReadState,
    Refusal,
    SaliencyMap,
    SegmentMask,
    SegmentVolume,
)
from fhir_records.store import models, outlines, results, saliency, studies
from inference.answers import Answer, Classified, Concept, Refused
from inference.drift import load_reference
from inference.reading import ImageFile
from inference.registry import RegisteredModel

log = structlog.get_logger(__name__)


class Reader(Protocol):
    """What reads: `inference.runner.ModelRunner`, or a stand-in for it."""

    def read(self, model: RegisteredModel, images: Sequence[ImageFile]) -> Answer:
        """The model's answer for these images. Raises ModelFailed."""
        ...

    def look(self, model: RegisteredModel, images: Sequence[ImageFile]) -> str:
        """What these images show, by a model that tells anatomies. Raises ModelFailed."""
        ...


class Models(Protocol):
    """Where the models are: `inference.live_models.LiveModels`, or a stand-in for it."""

    def find(self, name: str, version: str) -> RegisteredModel | None:
        """A version of a model, active or not."""

    def shadow_of(self, name: str) -> RegisteredModel | None:
        """The version on trial beside the active one."""


@dataclass(frozen=True, slots=True)
class ReadStudy:
    """The job: read one revision with one model. A second reader changes nothing.

    After it, a version on trial reads the same; what that says, or that it fails, changes nothing of the read.
    """

    database: Database
    reader: Reader
    models: Models
    installation: Installation
    path_of: Callable[[str], Path]  # a file key's place on the disk
    now: Callable[[], dt.datetime]

    def __call__(self, read_id: int) -> None:
        """Do the read with this number; nothing happens where it is done, or was given up."""
        with self.database.session() as session:
            row = results.read_row(session, read_id, lock=True)
            study_uid, name, version = row.study.study_uid, row.model, row.model_version
            instances = studies.revision_instances(session, row.study, row.revision)
            waiting = row.state in (ReadState.QUEUED, ReadState.READING)
            if waiting:
                row.state, row.attempts, row.started_at = ReadState.READING, row.attempts + 1, self.now()
                row.next_attempt_at = None
        if waiting:
            self._read(read_id, study_uid, name, version, instances)
        self._try_shadow(read_id, study_uid, name, instances)

    def _read(self, read_id: int, study_uid: str, name: str, version: str, instances: Sequence[Instance]) -> None:
        model = self.models.find(name, version)
        started = time.monotonic()
        try:
            if model is None:
                raise ModelFailed(f"The model {name} {version} is not registered on this machine.")
            answer = self.reader.read(model, [self._file(instance) for instance in instances])
        except ModelFailed as error:
            self._failed(read_id, str(error))
            return
        except Exception as error:  # boundary: whatever breaks one study's read must not stop the others'
            log.exception("read broke", study=log_id(study_uid), error=type(error).__name__)
            self._failed(read_id, "An unexpected error stopped the read; the log has the details.")
            return
        self._write(read_id, study_uid, model, answer, instances, time.monotonic() - started)

    def _try_shadow(self, read_id: int, study_uid: str, name: str, instances: Sequence[Instance]) -> None:
        """Let the version on trial read a study that the active one has read, once."""
        model = self.models.shadow_of(name)
        if model is None:
            return
        with self.database.session() as session:
            result = results.latest_result(session, read_id)
            if result is None or models.has_shadow(session, read_id, name, model.version):
                return
        active = result.finding.label if result.finding else None
        started = time.monotonic()
        answer: Answer | None = None
        error = None
        try:
            answer = self.reader.read(model, [self._file(instance) for instance in instances])
        except ModelFailed as failed:
            error = str(failed)
        except Exception as broken:  # boundary: a version on trial must not disturb the reads that count
            log.exception("shadow read broke", study=log_id(study_uid), error=type(broken).__name__)
            error = "An unexpected error stopped the read; the log has the details."
        label = answer.label if isinstance(answer, Classified) else None
        outcome = models.ShadowOutcome(
            read_id=read_id,
            model=name,
            version=model.version,
            label=label,
            probability=answer.probability if isinstance(answer, Classified) else None,
            refusal=answer.code if isinstance(answer, Refused) else None,
            error=error,
            agrees=None if answer is None else label == active,
            seconds=time.monotonic() - started,
        )
        with self.database.session() as session:
            models.record_shadow(session, outcome)
        log.info("study read on trial", study=log_id(study_uid), model=name, version=model.version)

    def _file(self, instance: Instance) -> ImageFile:
        return ImageFile(
            path=str(self.path_of(instance.file_key)),
            series_uid=instance.series_uid,
            sop_uid=instance.sop_uid,
            sop_class_uid=instance.sop_class_uid,
        )

    def _write(
        self,
        read_id: int,
        study_uid: str,
        model: RegisteredModel,
        answer: Answer,
        instances: Sequence[Instance],
        seconds: float,
    ) -> None:
        finding = finding_of(answer, model, self.installation, study_uid) if isinstance(answer, Classified) else None
        refusal = refusal_of(answer, model) if isinstance(answer, Refused) else None
        with self.database.session() as session:
            row = results.read_row(session, read_id, lock=True)
            result_id = results.add_result(
                session,
                read_id,
                finding=finding,
                refusal=refusal,
                algorithm=algorithm_of(model),
                images_read=images_read(answer, instances),
                created_at=self.now(),
            )
            if result_id is None:
                return  # another reader was faster, and its result stands
            row.state = ReadState.READ if finding else ReadState.REFUSED
            row.error, row.finished_at = None, self.now()
            saliency.add_maps(session, read_id, maps_of(answer))
            if (drawn := outlines_of(answer)) is not None:
                outlines.add_outlines(session, read_id, drawn)
            note_figures(session, read_id, model, answer, seconds, self.now())
            request_rendering(session, result_id, priority=row.priority)
            audit.record(
                session,
                AuditEntry(
                    action="read",
                    actor=f"{model.name} {model.version}",
                    study_uid=study_uid,
                    detail={"read": read_id, "state": row.state.value},
                ),
            )
        log.info("study read", study=log_id(study_uid), model=model.name, state="read" if finding else "refused")

    def _failed(self, read_id: int, words: str) -> None:
        with self.database.session() as session:
            results.note_failure(session, read_id, words, self.now())


def note_figures(
    session: Session, read_id: int, model: RegisteredModel, answer: Answer, seconds: float, now: dt.datetime
) -> None:
    """Write down what the model was shown and said, for watching it in use."""
    shown = answer.figures
    models.record_figures(
        session,
        models.Figures(
            read_id=read_id,
            model=model.name,
            model_version=model.version,
            read_at=now,
            label=answer.label if isinstance(answer, Classified) else None,
            probability=answer.probability if isinstance(answer, Classified) else None,
            refusal=answer.code if isinstance(answer, Refused) else None,
            images=shown.images if shown else 0,
            seconds=seconds,
            intensity=shown.intensity if shown else (),
            distances=shown.distances if shown else (),
        ),
    )
    try:
        reference = load_reference(model.path)
    except BundleError as error:
        log.warning("a model's drift reference cannot be used", model=model.name, why=str(error))
        return
    if reference is not None:
        models.record_reference(session, model.name, model.version, reference.intensity, reference.distances)


def algorithm_of(model: RegisteredModel) -> Algorithm:
    """The model as the record names it."""
    return Algorithm(
        name=model.name,
        version=model.version,
        title=model.title,
        manufacturer=model.manufacturer,
        device_uid=model.device_uid,
        weights_sha256=model.weights_sha256,
    )


def finding_of(answer: Classified, model: RegisteredModel, installation: Installation, study_uid: str) -> Finding:
    """The model's answer as the record's finding.

    Its tracking identifier stays the same over all revisions of the study and versions of the model: it is the one
    thing that this model says of this study (PS3.16 TID 4108).
    """
    classes = {entry.label: entry for entry in model.contract.classes}
    return Finding(
        label=answer.label,
        code=_code(answer.code),
        presence=Presence(answer.presence),
        probability=answer.probability,
        site=_code(answer.site),
        key_images=tuple(ImageRef(*image) for image in answer.key_images),
        limits=(*answer.limits, *_doubt(answer, model)),
        alternatives=tuple(
            ClassProbability(
                label=alternative.label,
                code=_code(classes[alternative.label].code),
                presence=Presence(classes[alternative.label].presence),
                probability=alternative.probability,
                site=_code(classes[alternative.label].site),
            )
            for alternative in answer.alternatives
        ),
        tracking_id=f"{model.name} 1",
        tracking_uid=name_uid(installation.namespace, study_uid, model.name, "finding", 1),
        segments=tuple(_segments(answer, model, installation, study_uid)),
    )


def _segments(
    answer: Classified, model: RegisteredModel, installation: Installation, study_uid: str
) -> Iterator[SegmentVolume]:
    """What the model outlined, in its contract's words; tracked like the finding, each by its label."""
    if answer.outlines is None or model.contract.segmentation is None:
        return
    known = {segment.label: segment for segment in model.contract.segmentation.segments}
    for found in answer.outlines.segments:
        meant = known[found.label]
        yield SegmentVolume(
            label=found.label,
            wording=meant.wording,
            code=_code(meant.code),
            category=_code(meant.category),
            site=_code(meant.site),
            colour=meant.colour,
            volume_mm3=found.volume_mm3,
            tracking_id=f"{model.name} {found.label}",
            tracking_uid=name_uid(installation.namespace, study_uid, model.name, "segment", found.label),
        )


def _doubt(answer: Classified, model: RegisteredModel) -> tuple[str, ...]:
    """What the reader must know where the answer is doubtful at the coverage that the model was calibrated for."""
    calibrated = model.contract.prediction_set
    if calibrated is None:
        return ()
    if answer.probability < calibrated.threshold:
        return (
            f"The model is less certain of this answer than it was of the right one in {calibrated.coverage:.0%} of the"
            " series that it was calibrated on.",
        )
    if len(answer.prediction_set) < 2:
        return ()
    wordings = {entry.label: entry.wording.lower() for entry in model.contract.classes}
    possible = [wordings[label] for label in answer.prediction_set]
    return (f"At {calibrated.coverage:.0%} coverage the answer may be {', '.join(possible[:-1])} or {possible[-1]}.",)


def refusal_of(answer: Refused, model: RegisteredModel) -> Refusal:
    """The model's refusal as the record's."""
    question = model.contract.question
    return Refusal(code=answer.code, sentence=answer.sentence, question=_code(question.code), site=_code(question.site))


def maps_of(answer: Answer) -> tuple[SaliencyMap, ...]:
    """The answer's saliency maps as the record's; none for a refusal, or from a model that gives none."""
    if isinstance(answer, Refused):
        return ()
    return tuple(
        SaliencyMap(
            image=ImageRef(*found.image),
            label=found.label,
            rows=found.rows,
            columns=found.columns,
            peak=found.peak,
            levels=base64.b64decode(found.values, validate=True),
        )
        for found in answer.activation
    )


def outlines_of(answer: Answer) -> Outlines | None:
    """What the answer outlines, as the record's; None for a refusal, or from a model that outlines nothing."""
    if isinstance(answer, Refused) or answer.outlines is None:
        return None
    drawn = answer.outlines
    return Outlines(
        rows=drawn.rows,
        columns=drawn.columns,
        images=tuple(ImageRef(*image) for image in drawn.images),
        masks=tuple(
            SegmentMask(number, frame.place, base64.b64decode(frame.mask, validate=True))
            for number, segment in enumerate(drawn.segments, start=1)
            for frame in segment.frames
        ),
    )


def images_read(answer: Answer, instances: Sequence[Instance]) -> tuple[ImageRef, ...]:
    """The images that the model was shown: those of the series that it chose."""
    if isinstance(answer, Refused):
        return ()
    return tuple(
        ImageRef(instance.series_uid, instance.sop_uid, instance.sop_class_uid)
        for instance in instances
        if instance.series_uid == answer.series_uid
    )


def _code(concept: Concept) -> Code:
    return Code(scheme=concept.scheme, value=concept.value, meaning=concept.meaning)
