"""Reviewed cases leave as training data: chosen by consent, de-identified, written aside, then whole in one step.

The row and the audit entry are written before the folder gets its name: what has left can be missing from a disk, and
never from the record. Consent is looked at twice, the second time when nobody can change it any more.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from dicom_listener.burnt_in import why_not
from dicom_listener.deidentification import deidentified, file_of
from dicom_listener.pixels import grey_frame, read_header
from fhir_records.database import Database
from fhir_records.errors import MayNotLeave, Outdated, PixelsNotReadable, QueryError, SettingsError
from fhir_records.model import Instance
from fhir_records.pseudonyms import Pseudonyms
from fhir_records.store import consent, review_exports
from fhir_records.store.consent import ConsentPolicy
from fhir_records.store.review_exports import ReviewedCase, ReviewExport
from inference.burnt_in import find_text
from inference.registry_files import sync, sync_folder
from workflow.export_card import CardFacts, data_card
from workflow.refused_pictures import RefusedPictures, TextFound
from workflow.reviewed_slices import LabelledSlice, Passed, labelled_slices, why_passed

COLUMNS = ("path", "label", "person", "dicom", "basis", "left", "top", "width", "height")
LABELS, REPORT, CARD = "labels.csv", "export.json", "README.md"
_TEXT_FOUND = str(TextFound.__doc__)
_TEXT_AROUND = "Text was found in most images of its series."
_HEAD_PARTS = frozenset(("BRAIN", "FACE", "HEAD", "NECK", "ORBIT", "PITUITARY", "SELLA", "SINUS", "SKULL", ""))
_STACKS = ("CT", "MR", "PT")
_SHOWN = (0.1, 99.95)  # percentiles of the grey values that become black and white


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is wanted."""

    output: Path  # a folder that is not there yet
    model: str = ""  # "": the only one whose results people have signed
    since: dt.datetime | None = None  # signed then or later
    include_unchanged: bool = False  # answers that were only accepted, too
    per_study: int = 16  # images at most of a study in which nothing is
    skip_heads: bool = False  # leave out stacks of slices of the head
    show_refused: Path | None = None  # another folder that is not there yet, for pictures of the text that was found
    asked_by: str = "command line"


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of it."""

    export: ReviewExport
    by_label: Mapping[str, int]  # images
    people: int
    passed: Mapping[str, int]  # cases that are not in it, by why
    refused: Mapping[str, int]  # images that are not in it, by why


@dataclass(frozen=True, slots=True)
class _Image:
    """One image that may leave."""

    name: str  # of its files, without folder and suffix
    person: str
    slice: LabelledSlice
    dicom: bytes
    png: bytes
    vendor: str
    modality: str
    series: str  # stands for the series


@dataclass(slots=True)
class _Work:
    """What has come together so far."""

    images: list[dict[str, object]] = field(default_factory=list)  # lines of labels.csv
    vendors: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    cases: list[ReviewedCase] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    refused: list[dict[str, str]] = field(default_factory=list)  # pseudonymous UID and reason


Progress = Callable[[int, int], None]  # cases done, of how many


class ExportReviews:
    """Exports the reviewed cases of one model."""

    def __init__(
        self,
        database: Database,
        path_of: Callable[[str], Path],
        policy: ConsentPolicy,
        clock: Callable[[], dt.datetime],
        version: str,
    ) -> None:
        self._database, self._path_of, self._policy = database, path_of, policy
        self._clock, self._version = clock, version

    def __call__(self, request: ExportRequest, progress: Progress | None = None) -> Exported:
        """Write the export and its row.

        Raises:
            QueryError: the model is not named, and not the only one; or nothing is to be exported.
            SettingsError: the folder is there already, or cannot be written.
            Outdated: a patient refused, or a result was rejected, while it was written; nothing was exported.
        """
        if request.output.exists():
            raise SettingsError(f"{request.output} is there already; an export is written to a folder of its own.")
        with self._database.session() as session:
            model = self._model(review_exports.reviewed_models(session), request.model)
            cases = review_exports.reviewed_cases(session, model, request.since)
            said = consent.consents(session, [case.patient_id for case in cases])
            pseudonyms = Pseudonyms(review_exports.pseudonym_key(session))
        work = _Work()
        pictures = RefusedPictures(request.show_refused, request.output)
        try:
            request.output.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{request.output.name}.partial-", dir=request.output.parent))
        except OSError as error:
            pictures.discard()
            raise SettingsError(f"{request.output.parent} cannot be written: {error.strerror}.") from error
        try:
            for folder in ("images", "dicom"):
                (aside / folder).mkdir(mode=0o700)
            for number, case in enumerate(cases, start=1):
                allowed = self._policy.allows(said[case.patient_id])
                self._take(case, allowed, request, pseudonyms, aside, work, pictures)
                if progress:
                    progress(number, len(cases))
            pictures.finish()  # also where no image is left to export: that is when they are wanted most
            exported = self._finish(model, request, aside, work)
        except OSError as error:
            raise SettingsError(f"The export could not be written: {error.strerror}.") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            pictures.discard()
        return exported

    @staticmethod
    def _model(signed: Sequence[str], wanted: str) -> str:
        named = ", ".join(signed) or "none"
        if wanted and wanted not in signed:
            raise QueryError(f"Nobody has signed a result of {wanted!r}; results are signed of: {named}.")
        if not wanted and len(signed) != 1:
            raise QueryError(f"Name the model by --model; results are signed of: {named}.")
        return wanted or signed[0]

    def _take(
        self,
        case: ReviewedCase,
        allowed: bool,
        request: ExportRequest,
        pseudonyms: Pseudonyms,
        aside: Path,
        work: _Work,
        pictures: RefusedPictures,
    ) -> None:
        """Write the images of one case that may leave."""
        why = why_passed(case, allowed=allowed, include_unchanged=request.include_unchanged)
        if why is not None:
            work.passed[why.value] += 1
            return
        images: list[_Image] = []
        refused: list[dict[str, str]] = []
        is_head = False
        with self._database.session() as session:
            instances = review_exports.images_of(session, case)
        for one in labelled_slices(case, request.per_study):
            try:
                header, path = self._header(instances, one)
                if request.skip_heads and _is_head(header):
                    is_head = True
                    break
                images.append(_image(header, path, one, pseudonyms.person(case.patient_uid), pseudonyms))
            except (MayNotLeave, PixelsNotReadable) as error:
                uid = pseudonyms.uid(one.image.sop_uid, one.image.frame or 1)
                refused.append({"image": uid, "series": pseudonyms.uid(one.image.series_uid), "reason": str(error)})
                if isinstance(error, TextFound):
                    pictures.add(uid, error)
        if is_head:
            work.passed[Passed.HEAD.value] += 1
            return
        left = _without_text_around(images, refused)
        work.refused += refused
        if not left:
            work.passed[Passed.NO_IMAGE.value] += 1
            return
        for image in left:
            _write(aside / "images" / f"{image.name}.png", image.png)
            _write(aside / "dicom" / f"{image.name}.dcm", image.dicom)
            work.images.append(_line(image))
            work.vendors[image.vendor] += 1
            work.modalities[image.modality] += 1
        work.cases.append(case)

    def _header(self, instances: Mapping[str, Instance], one: LabelledSlice) -> tuple[Dataset, Path]:
        instance = instances.get(one.image.sop_uid)
        if instance is None:
            raise MayNotLeave("It is no longer in the record.")
        path = self._path_of(instance.file_key)
        return read_header(path), path

    def _finish(self, model: str, request: ExportRequest, aside: Path, work: _Work) -> Exported:
        """Write report and card, then the row; last, give the folder its name."""
        refused = Counter(line["reason"] for line in work.refused)
        if not work.images:
            cases = "; ".join(f"{number}: {why}" for why, number in sorted(work.passed.items()))
            images = "".join(f" Images, {number}: {why}" for why, number in sorted(refused.items()))
            raise QueryError(f"No case of {model} may be exported. {cases or 'Nobody has signed any'}.{images}")
        now = self._clock()
        export_uid = uuid.uuid4()
        people = len({line["person"] for line in work.images})
        options = {
            "since": request.since.isoformat() if request.since else None,
            "include_unchanged": request.include_unchanged,
            "per_study": request.per_study,
            "skip_heads": request.skip_heads,
            "show_refused": request.show_refused is not None,
            "consent": self._policy.value,
        }
        facts = CardFacts(
            export_uid=str(export_uid),
            model=model,
            model_versions=tuple(sorted({case.result.algorithm.version for case in work.cases})),
            wetread=self._version,
            options=options,
            lines=tuple(work.images),
            vendors=dict(work.vendors),
            modalities=dict(work.modalities),
            years=tuple(sorted({case.started_at.year for case in work.cases if case.started_at})),
            changed=sum(case.result.author is not None for case in work.cases),
            cases=len(work.cases),
            passed=dict(work.passed),
            refused=dict(refused),
        )
        _write(aside / LABELS, _csv(work.images))
        _write(aside / CARD, data_card(facts).encode())
        report = {**{key: value for key, value in asdict(facts).items() if key != "lines"}, "images": work.refused}
        report["refused_images"] = report.pop("images")
        _write(aside / REPORT, (json.dumps(report, indent=1) + "\n").encode())
        sync(aside)
        export = ReviewExport(
            export_uid=export_uid,
            model=model,
            asked_by=request.asked_by,
            exported_at=now,
            folder=request.output.name,
            options=options,
            result_ids=tuple(case.result.id for case in work.cases),
            images=len(work.images),
            refused=len(work.refused),
        )
        self._record(export, request, work.cases)
        if request.output.exists():  # renaming would put an empty folder of this name away
            raise SettingsError(f"{request.output} has appeared meanwhile; export again, to another folder.")
        aside.rename(request.output)
        sync_folder(request.output.parent)
        return Exported(
            export=export,
            by_label=dict(Counter(str(line["label"]) for line in work.images)),
            people=people,
            passed=dict(work.passed),
            refused=dict(refused),
        )

    def _record(self, export: ReviewExport, request: ExportRequest, cases: Sequence[ReviewedCase]) -> None:
        """Write the row, unless somebody has refused or changed a result meanwhile."""
        with self._database.session() as session:
            consent.lock_consent(session)
            now = {case.result.id: case for case in review_exports.reviewed_cases(session, export.model)}
            said = consent.consents(session, [case.patient_id for case in now.values()])
            for case in cases:
                same = now.get(case.result.id)
                if same is None or why_passed(
                    same,
                    allowed=self._policy.allows(said[same.patient_id]),
                    include_unchanged=request.include_unchanged,
                ):
                    raise Outdated("A patient or a radiologist has decided otherwise meanwhile. Export again.")
            review_exports.add_export(session, export)


def _image(header: Dataset, path: Path, one: LabelledSlice, person: str, pseudonyms: Pseudonyms) -> _Image:
    """The image without its person. Raises MayNotLeave or PixelsNotReadable."""
    why = why_not(header)
    if why is not None:
        raise MayNotLeave(why)
    frame = one.image.frame or 1
    ds, _ = deidentified(path, frame, person, pseudonyms)
    grey = grey_frame(path, frame)
    if not float(grey.max()) > float(grey.min()):  # a rescaling to one value would hide what the stored values show
        raise MayNotLeave("It shows nothing.")
    boxes = find_text(grey)
    if boxes:
        raise TextFound(grey, boxes)
    name = str(uuid.UUID(int=int(str(ds.SOPInstanceUID).rpartition(".")[2])))
    series, modality = str(ds.SeriesInstanceUID), str(ds.Modality)
    return _Image(name, person, one, file_of(ds), _png(grey), str(ds.Manufacturer), modality, series)


def _png(grey: npt.NDArray[np.float32]) -> bytes:
    low, high = np.percentile(grey, _SHOWN)
    levels = np.clip((grey - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(levels * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _without_text_around(images: Sequence[_Image], refused: list[dict[str, str]]) -> list[_Image]:
    """Text stands in all images of a series or in none: where most have it, the search has missed it in the rest."""
    found = Counter(line["series"] for line in refused if line["reason"] == _TEXT_FOUND)
    clear = Counter(image.series for image in images)
    left = []
    for image in images:
        if found[image.series] > clear[image.series]:
            uid = f"2.25.{uuid.UUID(image.name).int}"
            refused.append({"image": uid, "series": image.series, "reason": _TEXT_AROUND})
        else:
            left.append(image)
    return left


def _is_head(header: Dataset) -> bool:
    """Whether a face could be made of the stack that the image is from; also where nobody says what it shows."""
    return (
        str(header.get("Modality") or "") in _STACKS
        and str(header.get("BodyPartExamined") or "").strip().upper() in _HEAD_PARTS
    )


def _line(image: _Image) -> dict[str, object]:
    region = image.slice.region
    box = (region.left, region.top, region.width, region.height) if region else ("", "", "", "")
    named = (f"images/{image.name}.png", image.slice.label, image.person, f"dicom/{image.name}.dcm")
    return dict(zip(COLUMNS, (*named, image.slice.basis.value, *box), strict=True))


def _csv(lines: Sequence[Mapping[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    # By name, which is by chance: the order tells nothing of which slice lay beside which.
    writer.writerows(sorted(lines, key=lambda line: str(line["path"])))
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
