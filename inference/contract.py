"""`contract.toml`: what a model may be shown, what it answers, and what it may use. Read once, checked whole."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fhir_records.errors import BundleError
from inference.answers import Concept
from inference.filters import FILTERS
from inference.preprocess import CROPS, PreprocessSettings
from inference.segmentation_contract import SegmentationSettings, parse_segmentation
from inference.toml_table import Table, fail

_NAME = re.compile(r"[a-z][a-z0-9_]{1,62}")
_PRESENCE = ("present", "absent")
KINDS = ("finding", "guard", "segmentation")
_EXPECTABLE = ("contrast_agent", "body_part")


@dataclass(frozen=True, slots=True)
class ModelClass:
    """One output of the network, and what it means."""

    label: str  # also the name of its folder of training images
    wording: str  # the finding in plain words
    presence: str  # present | absent
    code: Concept
    site: Concept


@dataclass(frozen=True, slots=True)
class Question:
    """What the model looks for: said where it could not look."""

    code: Concept
    site: Concept


@dataclass(frozen=True, slots=True)
class Required:
    """Without these an image is not shown to the model. Empty tuples demand nothing."""

    modality: tuple[str, ...]  # Modality (0008,0060)
    sop_class: tuple[str, ...]  # SOP Class UIDs
    photometric: tuple[str, ...]  # Photometric Interpretation (0028,0004)
    image_type_excluded: tuple[str, ...]  # values that ImageType (0008,0008) may not hold
    body_part: tuple[str, ...]  # allowed values of BodyPartExamined (0018,0015), where one is given
    anatomy: str  # the same in words, for the refusal
    min_images: int  # images or frames in the series
    min_matrix: int  # pixels: the shorter of Rows and Columns
    min_head_images: int  # images in which something like a head is seen


@dataclass(frozen=True, slots=True)
class Expected:
    """What the training images had: where a study has it not, the answer is limited, in these words."""

    attribute: str  # contrast_agent | body_part: the limit is stated where it is empty
    sentence: str


@dataclass(frozen=True, slots=True)
class Familiarity:
    """How strange a series may look to the network: the median of its slices' distances from the training images.

    A distance is the squared Mahalanobis distance of the network's last features, divided by their number (Lee et al.,
    NeurIPS 2018, with one mean for all classes).
    """

    usual: float  # above it the answer is limited: 95 % of the calibration images are below
    limit: float  # above it the series is refused: 99 % are below


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """Which classes cannot be ruled out: those whose probability for the study reaches the threshold.

    Split conformal prediction (Vovk et al., 2005), calibrated on synthetic series; `training.studies` says how.
    """

    coverage: float  # share of calibration series whose true class is in the set
    threshold: float  # least probability of a class in the set


@dataclass(frozen=True, slots=True)
class Guard:
    """Another registered model that looks first, and what it must see for this one to read."""

    model: str  # its name in the registry
    allowed: tuple[str, ...]  # its labels
    threshold: float  # least probability of the allowed labels together


@dataclass(frozen=True, slots=True)
class Contract:
    """All that Wetread needs to know of a model beside its network."""

    name: str
    version: str
    title: str
    manufacturer: str
    question: Question
    classes: tuple[ModelClass, ...]  # in the order of the network's outputs
    required: Required
    expected: tuple[Expected, ...]
    limits: tuple[str, ...]  # sentences that stand under every answer
    preprocess: PreprocessSettings
    temperature: float  # logits are divided by it
    familiarity: Familiarity | None  # None: the model cannot tell strange images from those it knows
    time_limit_s: float  # for one study
    memory_limit_mb: int  # of the process
    batch_size: int
    prediction_set: PredictionSet | None = None  # None: not calibrated for studies
    guard: Guard | None = None  # None: no other network looks first
    independence: float = 0.0  # of neighbouring slices, 0 to 1; `classify` says what it means
    kind: str = "finding"  # one of KINDS: a guard answers other models, and no study is routed to it
    segmentation: SegmentationSettings | None = None  # of a model that outlines, whose `preprocess` means nothing


def load_contract(path: Path) -> Contract:
    """The contract in `path`. Raises BundleError that names the key, its value and what is allowed."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BundleError(f"{path.name} cannot be read: {error}") from error
    return parse_contract(document)


def parse_contract(document: Mapping[str, Any]) -> Contract:
    """The contract in a parsed TOML document. Raises BundleError."""
    top = Table(document, "")
    kind = top.choice("kind", KINDS) if "kind" in document else "finding"
    segmentation = None
    if kind == "segmentation":
        for key in ("classes", "familiarity", "prediction_set", "study"):
            if key in document:
                fail(key, "given", "no such table in a contract of kind 'segmentation'")
        segmentation = parse_segmentation(top)
    asked, limits = top.table("question"), top.table("limits")
    question = Question(asked.concept("code"), asked.concept("site"))
    name = top.text("name")
    if not _NAME.fullmatch(name):
        fail("name", name, "lower-case letters, digits and underscores, a letter first")
    return Contract(
        name=name,
        version=top.text("version"),
        title=top.text("title"),
        manufacturer=top.text("manufacturer"),
        question=question,
        classes=_classes(top) if segmentation is None else _there_or_not(question),
        required=_required(top.table("required"), looks_for_heads=segmentation is None),
        expected=tuple(_expected(table) for table in top.tables("expected", optional=True)),
        limits=limits.texts("always"),
        preprocess=_preprocess(top.table("preprocess")) if segmentation is None else PreprocessSettings(),
        temperature=top.table("calibration").number("temperature", 0.05, 20),
        familiarity=_familiarity(top.table("familiarity")) if "familiarity" in document else None,
        time_limit_s=limits.number("time_limit_s", 1, 86_400),
        memory_limit_mb=int(limits.number("memory_limit_mb", 256, 1_048_576)),
        batch_size=int(limits.number("batch_size", 1, 1024)),
        prediction_set=_prediction_set(top.table("prediction_set")) if "prediction_set" in document else None,
        guard=_guard(top.table("guard")) if "guard" in document else None,
        independence=top.table("study").number("independence", 0, 1) if "study" in document else 0.0,
        kind=kind,
        segmentation=segmentation,
    )


def _classes(top: Table) -> tuple[ModelClass, ...]:
    classes = tuple(_class(table) for table in top.tables("classes"))
    if len(classes) < 2:
        fail("classes", len(classes), "at least two [[classes]]")
    labels = [item.label for item in classes]
    if len(set(labels)) != len(labels):
        fail("classes", labels, "labels that differ")
    if sum(item.presence == "absent" for item in classes) != 1:
        fail("classes", [item.presence for item in classes], "exactly one class whose presence is 'absent'")
    return classes


def _there_or_not(question: Question) -> tuple[ModelClass, ...]:
    """The two answers of a model that outlines: what it looks for is there, or it is not."""
    meaning = question.code.meaning
    thing = meaning if meaning[1:2].isupper() else meaning[:1].lower() + meaning[1:]
    return (
        ModelClass(thing, meaning, "present", question.code, question.site),
        ModelClass(f"no {thing}", f"No {thing}", "absent", question.code, question.site),
    )


def _class(table: Table) -> ModelClass:
    return ModelClass(
        table.text("label"),
        table.text("wording"),
        table.choice("presence", _PRESENCE),
        table.concept("code"),
        table.concept("site"),
    )


def _required(table: Table, *, looks_for_heads: bool) -> Required:
    return Required(
        modality=table.texts("modality"),
        sop_class=table.texts("sop_class"),
        photometric=table.texts("photometric"),
        image_type_excluded=table.texts("image_type_excluded"),
        body_part=table.texts("body_part"),
        anatomy=table.text("anatomy"),
        min_images=int(table.number("min_images", 1, 100_000)),
        min_matrix=int(table.number("min_matrix", 1, 65_535)),
        min_head_images=int(table.number("min_head_images", 1, 100_000)) if looks_for_heads else 1,
    )


def _expected(table: Table) -> Expected:
    return Expected(table.choice("attribute", _EXPECTABLE), table.text("sentence"))


def _familiarity(table: Table) -> Familiarity:
    usual = table.number("usual", 0, 1e9)
    return Familiarity(usual, table.number("limit", usual, 1e9))


def _prediction_set(table: Table) -> PredictionSet:
    return PredictionSet(table.number("coverage", 0.5, 0.999), table.number("threshold", 0, 1))


def _filters(table: Table) -> tuple[str, ...]:
    names = table.texts("filters")
    if not set(names) <= set(FILTERS):
        fail(table.path + ".filters", list(names), " and ".join(repr(name) for name in FILTERS))
    return names


def _guard(table: Table) -> Guard:
    allowed = table.texts("allowed")
    if not allowed:
        fail("guard.allowed", [], "at least one label of the guard")
    return Guard(table.text("model"), allowed, table.number("threshold", 0, 1))


def _preprocess(table: Table) -> PreprocessSettings:
    return PreprocessSettings(
        size=int(table.number("size", 16, 1024)),
        margin=table.number("margin", 0, 1),
        foreground=table.number("foreground", 0, 1),
        low_percentile=table.number("low_percentile", 0, 49),
        high_percentile=table.number("high_percentile", 51, 100),
        crop=table.choice("crop", CROPS) if "crop" in table.values else "head",
        filters=_filters(table) if "filters" in table.values else (),
    )


def preprocess_table(settings: PreprocessSettings) -> str:
    """The `[preprocess]` table as TOML, for training to write."""
    values = [(item.name, getattr(settings, item.name)) for item in fields(settings)]
    lines = [f"{name} = {value if isinstance(value, (int, float)) else json.dumps(value)}" for name, value in values]
    return "\n".join(["[preprocess]", *lines, ""])
