"""The data card of an export: what is in it, where it is from, what was left out, and what it must not be taken for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What is told of an export. Nothing in it is about one person."""

    export_uid: str
    model: str
    model_versions: tuple[str, ...]  # that read the cases
    wetread: str  # version
    options: Mapping[str, Any]
    lines: tuple[Mapping[str, object], ...]  # of labels.csv
    vendors: Mapping[str, int]  # images
    modalities: Mapping[str, int]  # images
    years: tuple[int, ...]  # of the studies
    changed: int  # cases in which a person's own answer stands
    cases: int
    passed: Mapping[str, int]  # cases that were left out, by why
    refused: Mapping[str, int]  # images that were left out, by why


def data_card(facts: CardFacts) -> str:
    """The card, Markdown."""
    asked = facts.options
    period = f"{facts.years[0]} to {facts.years[-1]}" if facts.years else "not known"
    sections = [
        (
            f"# Reviewed cases of {facts.model}",
            [
                "De-identified, and still about people: keep it as such, give it to nobody who may not have it, and",
                "delete it when it has served. A patient may take consent back; whoever exported it can then tell you",
                f"that this export, `{facts.export_uid}`, holds cases of that patient.",
            ],
        ),
        (
            "## What is in it",
            [
                f"{len(facts.lines)} images of {_people(facts.lines)} people, {facts.cases} studies taken {period}.",
                f"In {facts.changed} of the studies a person's own answer stands; in the others the model's, accepted.",
                "",
                *_table(("class", "images", "people"), _by_class(facts.lines)),
                "",
                *_table(("label rests on", "images"), sorted(_counted(facts.lines, "basis").items())),
                "",
                *_table(("scanner's make", "images"), sorted(facts.vendors.items())),
                "",
                *_table(("modality", "images"), sorted(facts.modalities.items())),
            ],
        ),
        (
            "## How it was chosen",
            [
                f"Read by {facts.model} {', '.join(facts.model_versions)}; signed by radiologists of one site.",
                f"Consent: `{asked['consent']}`. Cases that were only accepted: "
                f"{'included' if asked['include_unchanged'] else 'left out'}. Of a study in which nothing is, at most",
                f"{asked['per_study']} images. Signed since: {asked['since'] or 'ever'}.",
                "",
                *_table(("cases left out, because", "cases"), sorted(facts.passed.items())),
                "",
                *_table(("images left out, because", "images"), sorted(facts.refused.items())),
            ],
        ),
        (
            "## How people are kept out of it",
            [
                "DICOM PS3.15 Basic Application Confidentiality Profile without options, by dicom-anonymizer "
                f"{version('dicom-anonymizer')}; of what that leaves, only attributes of a fixed list.",
                "No dates, no ages, no free text, no private attributes, no overlays. UIDs and people are",
                "replaced by pseudonyms that are the same in every export of one installation. Slices do not tell",
                "their place in the stack. Images in whose pixels text was found were left out; the search can miss",
                "some.",
            ],
        ),
        (
            "## What to know",
            [
                "- The labels are radiologists' opinions of images, often of what a model had said before: whoever",
                "  sees an answer first tends to agree with it.",
                "- Cases that were signed are not a sample of all cases"
                + ("." if asked["include_unchanged"] else "; these are those in which the model was corrected."),
                "- A label on a key image says that the finding was seen in the study, and that the model thought",
                "  of this image.",
            ],
        ),
        ("## Made by", [f"Wetread {facts.wetread}."]),
    ]
    return "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections) + "\n"


def _people(lines: Sequence[Mapping[str, object]]) -> int:
    return len({line["person"] for line in lines})


def _by_class(lines: Sequence[Mapping[str, object]]) -> list[tuple[Any, ...]]:
    labels = sorted({str(line["label"]) for line in lines})
    found = {label: [line for line in lines if line["label"] == label] for label in labels}
    return [(label, len(found[label]), _people(found[label])) for label in labels]


def _counted(lines: Sequence[Mapping[str, object]], column: str) -> Counter[str]:
    return Counter(str(line[column]) for line in lines)


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return [f"{header[0]}: none.".capitalize()]
    return ["| " + " | ".join(map(str, line)) + " |" for line in (header, ["---"] * len(header), *rows)]
