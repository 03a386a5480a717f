"""A new version of a model from an export of reviewed cases: which of them, its contract, and where it comes from.

The contract is that of the version it starts from, with a higher version number, without what training finds out anew,
and with its own words on training data. Nothing here registers or activates anything.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fhir_records.errors import TrainingError
from inference.registered import RegisteredModel
from inference.training.recalled import Recalled
from inference.training.settings import TrainSettings
from inference.training.tuning import TuneSettings

CONTRADICTED = "it is in the export twice, with two labels"

# What training adds to a recipe, and what is said of its data: not taken over from the version before.
_MADE_ANEW = ("preprocess", "calibration", "familiarity", "prediction_set", "study", "training_data", "card")


@dataclass(frozen=True, slots=True)
class ReviewedCases:
    """An export of reviewed cases that is whole."""

    labels: Path  # labels.csv
    export_uid: str
    model: str
    images: int
    people: int
    left_out: Mapping[str, int] = field(default_factory=dict)  # images of the export that are not used, by why
    asked: bool = False  # whether the record was asked what may still be used


def open_export(folder: Path) -> ReviewedCases:
    """The export in `folder`. Raises TrainingError where it is none, or not whole."""
    labels, report = folder / "labels.csv", folder / "export.json"
    try:
        facts = json.loads(report.read_text(encoding="utf-8"))
        rows = _rows(labels)
        missing = sum(not (folder / row["path"]).is_file() for row in rows)
        if missing:
            raise TrainingError(f"{missing} of {len(rows)} images that labels.csv names are not in {folder}.")
        if not rows or not all(row["person"] for row in rows):
            raise TrainingError(f"labels.csv in {folder} does not say who is on each image.")
        return ReviewedCases(
            labels, str(facts["export_uid"]), str(facts["model"]), len(rows), len({row["person"] for row in rows})
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder} is no export of `wetread reviews export`: labels.csv and export.json are needed."
        ) from error


def next_version(base: str, registered: Sequence[str]) -> str:
    """A version number above that of the base and above every registered one: its second part raised."""
    numbers = [parsed for text in (base, *registered) if (parsed := _numbers(text))]
    if not numbers:
        return f"{base}.1"
    first, second = max(numbers)
    return f"{first}.{second + 1}.0"


def without(cases: ReviewedCases, recalled: Recalled, work: Path) -> ReviewedCases:
    """The cases that may still be used: a new labels.csv in `work`, with the reasons of what is not in it.

    Left out are people and images that the record recalls, and images that are in the export twice with two labels.
    Raises TrainingError where nothing is left.
    """
    rows = _rows(cases.labels)
    folder = cases.labels.resolve().parent
    told: dict[str, set[str]] = {}
    digests = [hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() for row in rows]
    for row, digest in zip(rows, digests, strict=True):
        told.setdefault(digest, set()).add(row["label"])
    reasons: Counter[str] = Counter()
    kept: list[dict[str, str]] = []
    for row, digest in zip(rows, digests, strict=True):
        why = recalled.why(row["person"], Path(row["path"]).stem) or (CONTRADICTED if len(told[digest]) > 1 else "")
        if why:
            reasons[why] += 1
        else:
            kept.append({**row, "path": str(folder / row["path"])})
    if not kept:
        listed = "; ".join(f"{number}: {why}" for why, number in sorted(reasons.items()))
        raise TrainingError(f"None of the images may be used any more. {listed}.")
    work.mkdir(parents=True, exist_ok=True)
    labels = work / "labels.csv"
    with labels.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(kept[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    people = len({row["person"] for row in kept})
    return replace(cases, labels=labels, images=len(kept), people=people, left_out=dict(reasons), asked=recalled.asked)


def review_settings(
    cases: ReviewedCases,
    base: RegisteredModel,
    version: str,
    output: Path,
    *,
    data: Path | None = None,
    seed: int,
    threads: int = 2,
) -> TuneSettings:
    """What a training of `base` on the cases is told; the contract to train for is written beside the output.

    Raises TrainingError where the base is not one that Wetread trained, or reads other cases.
    """
    if base.name != cases.model:
        raise TrainingError(f"The cases were read by {cases.model}; {base.name} answers another question.")
    text = (base.path / "contract.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    if "training_data" not in document:
        raise TrainingError(
            f"{base.name} {base.version} was not trained by Wetread: how it was, is not known. Train from a recipe, "
            "with --recipe and --data."
        )
    work = work_folder(output)
    work.mkdir(parents=True, exist_ok=True)
    recipe = work / "recipe.toml"
    recipe.write_text(recipe_text(text, document, version, cases, base, data is not None), encoding="utf-8")
    definition = json.loads((base.path / "configs" / "inference.json").read_text(encoding="utf-8"))["network_def"]
    train = TrainSettings(
        data=cases.labels,
        recipe=recipe,
        output=output,
        work=work,
        network=definition,
        seed=seed,
        threads=threads,
        preprocess=base.contract.preprocess,
        lineage={
            "base": {
                "name": base.name,
                "version": base.version,
                "device_uid": base.device_uid,
                "weights_sha256": base.weights_sha256,
            },
            "reviews": {
                "export": cases.export_uid,
                "images": cases.images,
                "people": cases.people,
                "left_out": dict(cases.left_out),
                "record_asked": cases.asked,
            },
        },
    )
    return TuneSettings(train, base, data)


def work_folder(output: Path) -> Path:
    """Where a training leaves its report and what it keeps meanwhile."""
    return output.with_name(output.name + ".work")


def recipe_text(
    contract: str,
    document: Mapping[str, Any],
    version: str,
    cases: ReviewedCases,
    base: RegisteredModel,
    more_data: bool,
) -> str:
    """The contract to train for, made from the base's own (its text, and as parsed)."""
    kept = "".join(part for part in re.split(r"(?m)^(?=\[)", contract) if _table(part) not in _MADE_ANEW)
    kept = re.sub(r'(?m)^version = ".*"$', f"version = {_quoted(version)}", kept, count=1)
    before = document["training_data"]
    source = f"Reviewed cases of one site (export {cases.export_uid}: {cases.images} images of {cases.people} people)"
    licence = "the site's own, not to be passed on"
    if more_data:
        source, licence = f"{source}; {before['source']}", f"{licence}; {before['licence']}"
    training = (
        f"The last layer of {base.name} {base.version} (Device UID {base.device_uid}) fitted anew to cases that "
        f"radiologists signed{', together with images that version was trained on' if more_data else ''}; everything "
        "before that layer is unchanged. All images of a person are on one side of the split. The version before was "
        f"trained on: {before['source']} ({before['licence']})."
    )
    if not cases.asked:
        training += " Nobody asked the record whether consent to use these cases had been taken back."
    limits = [
        "The labels are radiologists' opinions, often of what the version before had said: its errors that nobody "
        "noticed are learned as truth.",
        "Cases that were signed and may be used are no sample of all patients.",
        "The figures are of single images, and hold each class equally likely beforehand; where findings are rarer, a "
        "probability that it gives for one is too high.",
        "The limits of the version before hold on.",
        *document.get("card", {}).get("limits", ()),
    ]
    lines = [
        kept.rstrip(),
        "",
        "[training_data]",
        f"source = {_quoted(source)}",
        f"licence = {_quoted(licence)}",
        "",
        "[card]",
        f"training = {_quoted(training)}",
        "limits = [",
        *(f"  {_quoted(limit)}," for limit in limits),
        "]",
        "",
    ]
    return "\n".join(lines)


def _rows(labels: Path) -> list[dict[str, str]]:
    with labels.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _table(part: str) -> str:
    found = re.match(r"\[+([\w.]+)", part)
    return found[1].partition(".")[0] if found else ""


def _numbers(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
