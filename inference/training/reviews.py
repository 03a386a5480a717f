"""A new version of a model from an export of reviewed cases: its settings, its contract, and where it comes from.

The contract is that of the version it starts from, with a higher version number, without what training finds out anew,
and with its own words on training data. Nothing here registers or activates anything.
"""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_records.errors import TrainingError
from inference.registered import RegisteredModel
from inference.training.batch_augment import AugmentSettings
from inference.training.data import SplitSettings
from inference.training.settings import TrainSettings

LEAST_PEOPLE = 10  # of each class: below it a split in three parts measures nothing
# What training adds to a recipe, and what is said of its data: not taken over from the version before.
_MADE_ANEW = ("preprocess", "calibration", "familiarity", "prediction_set", "study", "training_data", "card")
_LIGHT = AugmentSettings(rotate=0.15, translate=0.06, invert=0.0, curve=0.2, gamma=0.3, bias=0.15, mixup=0.1)


@dataclass(frozen=True, slots=True)
class ReviewedCases:
    """An export of reviewed cases that is whole."""

    labels: Path  # labels.csv
    export_uid: str
    model: str
    images: int
    people: int


def open_export(folder: Path) -> ReviewedCases:
    """The export in `folder`. Raises TrainingError where it is none, or not whole."""
    labels, report = folder / "labels.csv", folder / "export.json"
    try:
        facts = json.loads(report.read_text(encoding="utf-8"))
        with labels.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
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


def review_settings(
    cases: ReviewedCases,
    base: RegisteredModel,
    version: str,
    output: Path,
    *,
    data: Path | None = None,
    epochs: int,
    batch_size: int,
    seed: int,
    device: str,
    patience: int,
    least_people: int = LEAST_PEOPLE,
) -> TrainSettings:
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
    definition, mirror = _network(base.path)
    work = output.with_name(output.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    recipe = work / "recipe.toml"
    recipe.write_text(recipe_text(text, document, version, cases, base, data is not None), encoding="utf-8")
    return TrainSettings(
        data=data or cases.labels,
        reviews=cases.labels if data else None,
        recipe=recipe,
        output=output,
        work=work,
        network=definition,
        mirror=mirror,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=5e-4,  # what the base has learned is to be moved, not lost
        seed=seed,
        device=device,
        patience=patience,
        augment=_LIGHT,
        preprocess=base.contract.preprocess,
        split=SplitSettings(seed=seed, shares=(0.6, 0.2, 0.2)),
        warm_start=base.path,
        least_people=least_people,
        lineage={
            "base": {
                "name": base.name,
                "version": base.version,
                "device_uid": base.device_uid,
                "weights_sha256": base.weights_sha256,
            },
            "reviews": {"export": cases.export_uid, "images": cases.images, "people": cases.people},
        },
    )


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
        f"From the weights of {base.name} {base.version} (Device UID {base.device_uid}), on cases that radiologists "
        f"signed{', together with a collection' if more_data else ''}. All images of a person are on one side of the "
        f"split. The version before was trained on: {before['source']} ({before['licence']})."
    )
    limits = [
        "The labels are radiologists' opinions, often of what the version before had said: its errors that nobody "
        "noticed are learned as truth.",
        "Cases that were signed and may be used are no sample of all patients.",
        "The figures are of single images, and hold each class equally likely beforehand; where findings are rarer, a "
        "probability that it gives for one is too high.",
        "The version before may have been trained on images that now validate; its limits hold on.",
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


def _network(bundle: Path) -> tuple[Mapping[str, Any], bool]:
    """The definition of the base's network, of several the first's, and whether it looks at the mirrored image, too."""
    definition = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))["network_def"]
    members = definition.get("members")
    return (members[0] if members else definition), bool(definition.get("mirror", False))


def _table(part: str) -> str:
    found = re.match(r"\[+([\w.]+)", part)
    return found[1].partition(".")[0] if found else ""


def _numbers(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
