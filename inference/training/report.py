"""What is written about a trained model: `metrics.json`, and the model card made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from inference.training.comparison import in_words
from inference.training.evaluate import Metrics

_KNOWN_LIMITS = (
    "- The training images carry no patient numbers. They were split by clusters of look-alikes (perceptual hash),",
    "  never by file, and near pairs are never parted; slices of one patient that do not look alike may still stand on",
    "  both sides, so the figures below flatter it.",
    "- The images without a finding come from other scanners and sequences than those with one. Cropping, blanking,",
    "  normalisation and strong augmentation work against that; they do not prove that it has no part in the answers.",
    "- The figures are of single slices. The study-level answer has not been validated on studies with a known",
    "  diagnosis.",
    "- It holds each of its classes equally likely beforehand. Where findings are rarer, as in screening, a",
    "  probability that it gives for one is too high.",
    "- A series unlike the training images is refused, by its distance in the network's features; a strange one may",
    "  pass.",
)


_SHOWN = {
    "head": "The head is cropped and what lies outside it blanked before the network looks.",
    "frame": "A border of one grey is cut away before the network looks.",
    "none": "The network looks at the whole picture.",
}


def metrics_record(
    metrics: Metrics, uncalibrated_error: float, temperature: float, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """`metrics.json`: the validation clusters' figures and how many images each part holds."""
    return {
        **_rounded(asdict(metrics)),
        "expected_calibration_error_before": round(uncalibrated_error, 4),
        "temperature": temperature,
        "images_by_part": {part: dict(by_class) for part, by_class in counts.items()},
    }


def model_card(record: Mapping[str, Any], contract: Mapping[str, Any]) -> str:
    """The model card, Markdown: every figure in it is from `record`, every stated limit from the contract."""
    data = contract["training_data"]
    sections = [
        (
            f"# {contract['title']} {contract['version']}",
            ["Not a certified medical device. For evaluation."],
        ),
        ("## What it does", _purpose(contract)),
        ("## What limits it", [*_stated_limits(contract), *_known_limits(contract)]),
        (
            "## Training data",
            [
                f"{data['source']} ({data['licence']}).",
                *_how(contract),
                "",
                *_table(("part", *record["images_by_part"]["train"]), _part_rows(record)),
                "",
                *_parts_served(record),
            ],
        ),
        *_compared(record),
        (
            f"## Figures, on the {_measured_on(record)} clusters",
            [
                f"{record['images']} slices in {record['clusters']} clusters.",
                "",
                *_table(("figure", "value"), _figure_rows(record, contract)),
                "",
                *_table(
                    ("class", "slices", "precision", "sensitivity", "specificity", "AUC"),
                    [tuple(item.values()) for item in record["classes"]],
                ),
                "",
                "Confusion (rows: true, columns: called):",
                "",
                *_table(
                    ("", *(item["label"] for item in record["classes"])),
                    [(c["label"], *row) for c, row in zip(record["classes"], record["confusion"], strict=True)],
                ),
            ],
        ),
        *_cross_validation(record),
        *_studies(record),
        *_baselines(record),
    ]
    return "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections) + "\n"


def _known_limits(contract: Mapping[str, Any]) -> list[str]:
    """The recipe's own, or those of collections of slices without persons."""
    stated = contract.get("card", {}).get("limits")
    return list(_KNOWN_LIMITS) if stated is None else [f"- {sentence}" for sentence in stated]


def _purpose(contract: Mapping[str, Any]) -> list[str]:
    if contract.get("kind") == "guard":
        return [
            f"It calls each image one of these: {', '.join(item['label'] for item in contract['classes'])}.",
            "Models whose contract names it are shown only what it calls as they need it, and routes can ask what it",
            f"says; no study is routed to it. {_SHOWN[contract['preprocess'].get('crop', 'head')]}",
        ]
    return [
        f"It reads one {'/'.join(contract['required']['modality'])} series and answers with one of these:",
        f"{_listed([item['wording'] for item in contract['classes']])}.",
        "Each image is classified by the network; the study's answer is drawn from all images (formula:",
        f"`inference/classify.py`). {_SHOWN[contract['preprocess'].get('crop', 'head')]}",
    ]


def _how(contract: Mapping[str, Any]) -> list[str]:
    told = contract.get("card", {}).get("training")
    return [] if told is None else [told]


def _measured_on(record: Mapping[str, Any]) -> str:
    return "validation" if sum(record["images_by_part"]["validation"].values()) else "calibration"


def _parts_served(record: Mapping[str, Any]) -> list[str]:
    if "compared" in record:
        return [
            "The calibration part chose the distance at which a series is strange, and the temperature, which is not",
            "below that of the version before; the validation part served for the figures below alone.",
        ]
    if _measured_on(record) == "validation":
        return [
            "The calibration part chose the temperature, the distance at which a series is strange and, where the",
            "length was not fixed beforehand, the epoch; the validation part served for the figures below alone.",
        ]
    return [
        "A final training: its length was fixed beforehand. The calibration part was not trained on; it chose the",
        "temperature and the distance at which a series is strange, and the figures below are of it, each half",
        "by a temperature that was fitted on the other half.",
    ]


def _stated_limits(contract: Mapping[str, Any]) -> list[str]:
    always = [f"- {sentence}" for sentence in contract["limits"]["always"]]
    where = [f'- Said where it applies: "{item["sentence"]}"' for item in contract.get("expected", [])]
    return always + where


def _part_rows(record: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(part, *by_class.values()) for part, by_class in record["images_by_part"].items()]


def _figure_rows(record: Mapping[str, Any], contract: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    low, high = record["balanced_accuracy_interval"]
    finding = [
        ("any finding: sensitivity", record["any_finding_sensitivity"]),
        ("any finding: specificity", record["any_finding_specificity"]),
    ]
    return [
        ("balanced accuracy (95 % interval, clusters drawn anew)", f"{record['balanced_accuracy']} ({low} to {high})"),
        ("accuracy", record["accuracy"]),
        *(finding if contract.get("kind", "finding") == "finding" else []),
        ("expected calibration error", record["expected_calibration_error"]),
        ("… before temperature scaling", record["expected_calibration_error_before"]),
        ("temperature", record["temperature"]),
    ]


def _compared(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Whether it is better than the version that it came from, first in words."""
    found = record.get("compared")
    if not found:
        return []
    rows = [
        (
            f"{kind}, {when}",
            "{} ({} to {})".format(one["balanced_accuracy"], *one["balanced_accuracy_interval"]),
            one["expected_calibration_error"],
            one["refused"],
            *one["sensitivity"].values(),
        )
        for kind in ("reviewed", "former")
        if found[kind]
        for when, one in (("before", found[kind]["before"]), ("after", found[kind]["after"]))
    ]
    classes = found["reviewed"]["after"]["sensitivity"]
    header = ("images held out", "balanced accuracy (95 %)", "calibration error", "refused as strange", *classes)
    lines = [*(f"- {sentence}" for sentence in in_words(found)), "", *_table(header, rows)]
    return [("## Beside the version before", lines)]


def _cross_validation(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = record.get("cross_validation")
    if not found:
        return []
    low, high = found["balanced_accuracy_interval"]
    rows = [
        ("balanced accuracy (95 % interval, clusters drawn anew)", f"{found['balanced_accuracy']} ({low} to {high})"),
        ("expected calibration error", found["expected_calibration_error"]),
        *((f"sensitivity, {name}", value) for name, value in found["sensitivity"].items()),
    ]
    lines = [
        f"The training clusters were dealt to {found['folds']} folds. {found['networks']} networks of the same build,",
        f"each trained without one fold, judged it: {found['images']} slices in {found['clusters']} clusters. These",
        "figures are the better guess of what the model does on images from elsewhere. The temperature that fits the",
        f"calibration clusters was multiplied by {found['harder']}: by so much their own is higher on their folds.",
        "",
        *_table(("figure", "value"), rows),
    ]
    return [("## Figures, cross-validated", lines)]


def _studies(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What synthetic series, or films that are studies, showed."""
    if "films" in record:
        found = record["films"]
        lines = [f"On {found['films']} films; others, of the calibration part, chose the set's threshold:", ""]
    elif "studies" in record:
        found = record["studies"]
        lines = [
            f"{found['series']} series were {found['built_from'].replace('; ', ' (')}). The slices beside a finding",
            "are other people's, which makes them easier than a patient's own.",
            "",
        ]
    else:
        return []
    words = {
        "accuracy": "accuracy of the study's answer",
        "independence": "independence of neighbouring slices, fitted",
        "calibration_error": "expected calibration error of its probability",
        "calibration_error_before": "… were neighbouring slices only repeats",
        "covered": f"studies whose class is in the prediction set (aim {found['coverage']})",
        "mean_size": "classes in a prediction set, on average",
    }
    rows = [(word, found[key]) for key, word in words.items() if key in found]
    return [("## Whole studies", [*lines, *_table(("figure", "value"), rows)])]


def _baselines(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = record.get("baselines")
    if not found:
        return []
    rows = [
        (name, figures["balanced accuracy"]["value"], figures["expected calibration error"]["value"])
        for name, figures in found.items()
    ]
    own = ("this model", record["balanced_accuracy"], record["expected_calibration_error"])
    lines = [
        "Networks of student projects, trained on the same part and measured on the same clusters:",
        "",
        *_table(("network", "balanced accuracy", "expected calibration error"), [own, *rows]),
    ]
    return [("## Beside it", lines)]


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join("undefined" if cell is None else str(cell) for cell in line) + " |" for line in lines]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}".lower()
