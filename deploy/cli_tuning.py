"""``wetread train --from-reviews``: a new version from reviewed cases, and what is said of it when it is registered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cli_common import console, database_of, in_words
from fhir_records.errors import BundleError, NotFound, TrainingError
from fhir_records.store.consent import ConsentPolicy
from inference.registry import Registry


@dataclass(frozen=True, slots=True)
class FromReviews:
    """What the command was told."""

    export: Path  # the export's folder
    output: Path  # the bundle's
    base: str | None  # version to start from; None: the active one
    former: Path | None  # images that the base was trained on
    seed: int
    threads: int
    ask_record: bool
    config: Path | None


def train_from_reviews(asked: FromReviews, registry: Registry) -> None:
    """Fit, compare and write a new version, and say whether it is better.

    Raises typer.Exit with status 1 where it cannot be done.
    """
    from inference.training.comparison import in_words as comparison_in_words
    from inference.training.recalled import Recalled
    from inference.training.reviews import next_version, open_export, review_settings, without, work_folder
    from inference.training.tuning import tune_model
    from workflow.review_recall import recalled

    with in_words():
        cases = open_export(asked.export)
        start = registry.find(cases.model, asked.base) if asked.base else registry.get(cases.model)
        number = next_version(start.version, [entry.version for entry in registry.versions(cases.model)])
    now = Recalled()
    if asked.ask_record:
        with database_of(asked.config) as (settings, database), database.session() as session:
            try:
                now = recalled(session, cases.export_uid, ConsentPolicy(settings.file.training.consent))
            except NotFound as error:
                raise TrainingError(
                    f"{error} Whether consent was taken back cannot be asked here: train where the export was made, "
                    "or add --no-record and ask there yourself."
                ) from error
    with in_words():
        work = work_folder(asked.output)
        cases = without(cases, now, work)
        tuned = tune_model(
            review_settings(
                cases, start, number, asked.output, data=asked.former, seed=asked.seed, threads=asked.threads
            )
        )
    for why, images in sorted(cases.left_out.items()):
        _say(f"Left out, images: {images}, because: {why}")
    for sentence in comparison_in_words(tuned.compared):
        _say(sentence)
    _say(
        f"Wrote {tuned.bundle}: version {number}, from {start.version}. Nothing is registered. The report, which shows "
        f"images of the data, is {work / 'report.html'}."
    )


def judged(bundle: Path, *, even_if_worse: bool) -> None:
    """Say how a bundle that reviewed cases trained compares with its base.

    Raises BundleError where it was shown to be worse, unless that is wanted; nothing is said of other bundles.
    """
    compared = _compared(bundle)
    if compared is None:
        return
    from inference.training.comparison import in_words as comparison_in_words
    from inference.training.comparison import worse_somewhere

    for sentence in comparison_in_words(compared):
        _say(sentence)
    if worse_somewhere(compared) and not even_if_worse:
        raise BundleError("It was shown to be worse than the version that it came from; --even-if-worse registers it.")


def _compared(bundle: Path) -> dict[str, Any] | None:
    try:
        figures = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # what a bundle lacks is said where it is registered
    found = figures.get("compared") if isinstance(figures, dict) else None
    return found if isinstance(found, dict) else None


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
