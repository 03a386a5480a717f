"""Where a study would go, without sending it there: for studies of the record, and for DICOM files in a folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicom_listener.description import describe
from dicom_listener.received import read_received
from dicom_listener.stored import open_stored
from fhir_records.errors import ObjectNotStorable, PixelsNotReadable
from fhir_records.model import Instance, InstanceKind, Patient, Priority, Standing, Study, StudyState
from fhir_records.store.arrivals import Arrival
from inference.answers import Refused
from inference.registered import RegisteredModel
from inference.suitability import HEADER_KEYWORDS, ImageFacts, check
from inference.suitability import facts_of as image_facts
from workflow.facts import by_series, facts_of
from workflow.headers import ReadHeaders
from workflow.router import Decision, Router
from workflow.routing import Look, home, some_images


@dataclass(frozen=True, slots=True)
class FolderStudy:
    """A study found in a folder."""

    study: Study
    caller: str
    instances: tuple[Instance, ...]  # its images; `file_key` is the file's whole path


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """What a folder holds."""

    studies: tuple[FolderStudy, ...]
    not_images: int  # reports, presentation states and the like: no rule sees them
    not_dicom: int


@dataclass(frozen=True, slots=True)
class Preview:
    """Whether a model would read the study, by the headers of its images alone."""

    model: str
    version: str
    reads: bool
    words: str  # what it would read, or why not


@dataclass(frozen=True, slots=True)
class DryRun:
    """One study under the rules."""

    study_uid: str
    at: dt.datetime  # the instant that the rules saw, in the site's zone
    source: str
    instances: Sequence[Instance]
    decision: Decision
    previews: tuple[Preview, ...]  # of each model that would be asked, in the order of the decision's reads

    def to_json(self, releases: Mapping[str, str]) -> dict[str, Any]:
        """As JSON values.

        Args:
            releases: when each destination gets results, "at_once" or "after_signing".
        """
        told = self.decision.to_json()
        for read, preview in zip(told["reads"], self.previews, strict=True):
            to = dict.fromkeys([*read["results_to"], *home(self.source)])
            read["would"] = "read" if preview.reads else "refuse"
            read["why"] = preview.words
            read["results_to"] = [{"destination": name, "release": releases.get(name, "at_once")} for name in to]
        return {
            "study_uid": self.study_uid,
            "at": self.at.isoformat(),
            "images": len(self.instances),
            "series": len(by_series(self.instances)),
            **told,
        }


def studies_in(
    paths: Iterable[Path], timezone: dt.tzinfo, caller: str | None, progress: Callable[[], None] = lambda: None
) -> FoundFiles:
    """The studies that DICOM files are of.

    Args:
        paths: the files; each image counts once, however many files hold it.
        timezone: of times that name none.
        caller: AE title to take as the sender; None: the one that a file names, if any.
        progress: called after each file.
    """
    images: dict[str, dict[str, tuple[Arrival, Instance]]] = {}
    not_images = not_dicom = 0
    for path in paths:
        try:
            received, data = read_received(path)
            if caller is not None:
                received = replace(received, caller=caller, source=f"dicom:{caller}")
            arrival = describe(data, received, timezone)
        except (ObjectNotStorable, OSError):
            not_dicom += 1
            continue
        finally:
            progress()
        if arrival.kind is not InstanceKind.IMAGE:
            not_images += 1
            continue
        images.setdefault(arrival.study_uid, {}).setdefault(arrival.sop_uid, (arrival, _instance(arrival, path)))
    return FoundFiles(tuple(_study(list(found.values())) for found in images.values()), not_images, not_dicom)


def dry_run(
    found: FolderStudy,
    router: Router,
    models: Mapping[str, RegisteredModel],
    *,
    look: Look,
    headers: ReadHeaders,
    now: dt.datetime,
) -> DryRun:
    """Decide on a study of a folder.

    Args:
        found: the study.
        router: the rules.
        models: the registered models.
        look: tells what images show; asked only where a rule asks.
        headers: reads what the index would not know.
        now: the instant that the rules see, in the site's zone.
    """
    anatomy = look(some_images(found.instances)) if router.asks_for_pixels else ""
    told = headers(found.instances)
    facts = facts_of(found.study, found.caller, found.instances, anatomy, headers=told, now=now)
    decision = router.decide(facts, told.order_priority)
    return DryRun(
        study_uid=found.study.study_uid,
        at=now,
        source=found.study.source,
        instances=found.instances,
        decision=decision,
        previews=previews(decision, models, found.instances, Path),
    )


def previews(
    decision: Decision,
    models: Mapping[str, RegisteredModel],
    instances: Sequence[Instance],
    path_of: Callable[[str], Path],
) -> tuple[Preview, ...]:
    """What each model that a decision asks would say to the headers of the images."""
    if not decision.reads:
        return ()
    facts = list(_image_facts(instances, path_of))
    return tuple(_preview(models[read.model.name], facts) for read in decision.reads)


def _preview(model: RegisteredModel, facts: Sequence[ImageFacts]) -> Preview:
    answer = check(model.contract, facts)
    if isinstance(answer, Refused):
        return Preview(model.name, model.version, False, answer.sentence)
    first = answer.images[0]
    named = f' "{first.series_description}"' if first.series_description else ""
    frames = sum(image.number_of_frames for image in answer.images)
    words = f"Series {first.series_number or answer.series_uid}{named}, {frames} images. Its pixels may yet be refused."
    return Preview(model.name, model.version, True, words)


def _image_facts(instances: Sequence[Instance], path_of: Callable[[str], Path]) -> Iterable[ImageFacts]:
    for instance in instances:
        path = path_of(instance.file_key)
        try:
            ds, _ = open_stored(path, HEADER_KEYWORDS)
        except PixelsNotReadable:
            continue  # as reading does: what cannot be opened is not read
        yield image_facts(ds, str(path), instance.series_uid, instance.sop_uid, instance.sop_class_uid)


def _study(found: Sequence[tuple[Arrival, Instance]]) -> FolderStudy:
    first = found[0][0]
    identity = first.patient
    instances = sorted((instance for _, instance in found), key=_order)
    patient = Patient(0, "", identity.name, identity.birth_date, identity.sex)
    study = Study(
        id=0,
        study_uid=first.study_uid,
        patient=patient,
        accession_number=first.accession_number,
        description=first.study_description,
        modalities=tuple(dict.fromkeys(arrival.modality for arrival, _ in found)),
        started_at=first.started_at,
        revision=1,
        priority=Priority.ROUTINE,
        state=StudyState.QUEUED,
        hold_reason=None,
        source=first.source,
        first_seen_at=first.received_at,
        last_arrival_at=first.received_at,
    )
    return FolderStudy(study, first.caller, tuple(instances))


def _order(instance: Instance) -> tuple[bool, int, str, bool, int, str]:
    """As the record orders a revision's images: by series, by image, what has no number last."""
    series, image = instance.series_number, instance.instance_number
    return (series is None, series or 0, instance.series_uid, image is None, image or 0, instance.sop_uid)


def _instance(arrival: Arrival, path: Path) -> Instance:
    return Instance(
        id=0,
        study_uid=arrival.study_uid,
        series_uid=arrival.series_uid,
        sop_uid=arrival.sop_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        kind=arrival.kind,
        standing=Standing.CURRENT,
        modality=arrival.modality,
        series_number=arrival.series_number,
        series_description=arrival.series_description,
        instance_number=arrival.instance_number,
        number_of_frames=arrival.number_of_frames,
        rows=arrival.rows,
        columns=arrival.columns,
        file_key=str(path),
        sha256="",
        size=0,
        received_at=arrival.received_at,
    )
