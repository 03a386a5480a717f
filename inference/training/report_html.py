"""The report of a training run: `report.html`, one file without scripts, and `report.json` with the same figures.

Written to the run's work folder and not into the bundle, because it shows training images.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.saliency import evidence
from inference.training import curves, svg
from inference.training.svg import Axes, Curve

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_WORST = 12
_PICTURE = 144  # pixels a side
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1250px;color:#222;padding:0 1em}
h1,h2{font-weight:600} table{border-collapse:collapse;margin:.5em 0}
td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right} th:first-child,td:first-child{text-align:left}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(360px,1fr));gap:1em} svg{width:100%}
figure{display:inline-block;margin:.4em;font-size:12px} img{display:inline-block}
pre{background:#f5f5f5;padding:1em;overflow:auto;font-size:12px}"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of the history."""

    number: int  # from 1
    loss: float  # on the training images
    balanced_accuracy: float  # on the images that chose the epoch


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that a report is made from. The images are the validation part: n of them, looked at once."""

    title: str
    classes: tuple[str, ...]
    absent: int  # index of the class that means "nothing there"
    counts: Mapping[str, Mapping[str, int]]  # part → class → images
    probabilities: Floats  # shape (n, classes), calibrated
    labels: Labels  # shape (n,)
    clusters: Labels  # shape (n,)
    squares: npt.NDArray[np.uint8]  # shape (n, size, size): what the network was shown
    maps: npt.NDArray[np.float32] | None = None  # shape (n, classes, rows, columns): activation maps
    history: tuple[Epoch, ...] = ()
    network_summary: str = ""
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name → its report.json's "figures"
    notes: tuple[str, ...] = ()  # sentences: how it compares with the version before


def write_report(folder: Path, data: ReportData) -> Path:
    """Write `report.html` and `report.json` into the folder, made where it is missing; gives the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    record = report_record(data)
    (folder / "report.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_page(data, record), encoding="utf-8")
    return page


def report_record(data: ReportData) -> dict[str, Any]:
    """The report as JSON values; an undefined figure is null."""
    intervals = curves.with_intervals(
        lambda chosen: curves.figures(data.probabilities[chosen], data.labels[chosen], data.classes), data.clusters
    )
    confusion = np.zeros((len(data.classes), len(data.classes)), dtype=int)
    np.add.at(confusion, (data.labels, data.probabilities.argmax(axis=1)), 1)
    return {
        "title": data.title,
        "images": len(data.labels),
        "clusters": len(np.unique(data.clusters)),
        "classes": list(data.classes),
        "counts": {part: dict(by_class) for part, by_class in data.counts.items()},
        "figures": {
            name: dict(zip(("value", "low", "high"), map(_known, values), strict=True))
            for name, values in intervals.items()
        },
        "confusion": confusion.tolist(),
        "history": [[epoch.number, _known(epoch.loss), _known(epoch.balanced_accuracy)] for epoch in data.history],
        "network": data.network_summary,
        "baselines": {name: dict(figures) for name, figures in data.baselines.items()},
        **({"notes": list(data.notes)} if data.notes else {}),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _page(data: ReportData, record: Mapping[str, Any]) -> str:
    sections = [
        f"<h1>{escape(data.title)}</h1>",
        "<p>Not a certified medical device. For evaluation. "
        f"{record['images']} images of the validation part, in {record['clusters']} clusters of look-alikes that no "
        "training image belongs to. Intervals: 95 %, clusters drawn anew.</p>",
        "<h2>Beside the version before</h2>" + "".join(f"<p>{escape(note)}</p>" for note in data.notes)
        if data.notes
        else "",
        "<h2>Figures</h2>",
        _figures_table(record),
        "<h2>Confusion</h2>",
        _table(
            ["true, called", *data.classes],
            [[n, *row] for n, row in zip(data.classes, record["confusion"], strict=True)],
        ),
        f'<h2>Plots</h2><div class="plots">{"".join(_plots(data))}</div>',
        "<h2>Worst errors</h2>",
        "<p>The surest of the wrong answers. Left what the network was shown, right where it saw what it answered.</p>",
        "".join(_worst(data)) or "<p>No answer was wrong.</p>",
        f"<h2>Network</h2><pre>{escape(data.network_summary)}</pre>" if data.network_summary else "",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(data.title)}</title><style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def _figures_table(record: Mapping[str, Any]) -> str:
    """This model's figures, and those of the baselines beside them."""
    baselines = record["baselines"]
    rows = []
    for name, found in record["figures"].items():
        others = [_figure(figures.get(name)) for figures in baselines.values()]
        rows.append([name, _figure(found), *others])
    return _table(["figure", "this model", *baselines], rows)


def _figure(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "–" if found is None else str(found)
    if found.get("value") is None:
        return "undefined"
    return f"{found['value']:.4g} ({found.get('low')} to {found.get('high')})"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _plots(data: ReportData) -> list[str]:
    parts = list(data.counts)
    most = max((count for by_class in data.counts.values() for count in by_class.values()), default=1)
    plots = [
        svg.bars(
            Axes("Images by class and part", "", "images", y_range=(0, most)),
            data.classes,
            [(part, [data.counts[part].get(name, 0) for name in data.classes]) for part in parts],
        )
    ]
    if data.history:
        numbers = [epoch.number for epoch in data.history]
        losses = [epoch.loss for epoch in data.history]
        span = (numbers[0], max(numbers[-1], numbers[0] + 1))
        plots += [
            svg.lines(
                Axes("Loss, training images", "epoch", "loss", span, (0, max(losses))), [Curve("", numbers, losses)]
            ),
            svg.lines(
                Axes("Balanced accuracy, by epoch", "epoch", "balanced accuracy", span),
                [Curve("", numbers, [epoch.balanced_accuracy for epoch in data.history])],
            ),
        ]
    truth = [data.labels == number for number in range(len(data.classes))]
    scores = data.probabilities.T
    each = list(zip(data.classes, scores, truth, strict=True))
    sure, right, _ = curves.reliability(data.probabilities, data.labels)
    answered, risk = curves.risk_coverage(data.probabilities, data.labels)
    return [
        *plots,
        svg.lines(
            Axes("Receiver operating characteristic", "1 - specificity", "sensitivity"),
            [_curve(name, curves.roc(score, true)) for name, score, true in each],
        ),
        svg.lines(
            Axes("Precision and recall", "recall", "precision"),
            [_curve(name, curves.precision_recall(score, true)) for name, score, true in each],
        ),
        svg.lines(
            Axes("Reliability", "probability of the answer", "share that is right"),
            [Curve("answers", list(sure), list(right), marks=True), Curve("perfect", [0, 1], [0, 1], dashed=True)],
        ),
        svg.lines(
            Axes(
                "Risk and coverage",
                "share answered, surest first",
                "share wrong",
                y_range=(0, max(0.05, float(risk.max()))),
            ),
            [Curve("", list(answered), list(risk))],
        ),
    ]


def _curve(name: str, points: tuple[Floats, Floats]) -> Curve:
    return Curve(name, points[0].tolist(), points[1].tolist())


def _worst(data: ReportData) -> list[str]:
    called = data.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(called != data.labels)
    shown = wrong[np.argsort(-data.probabilities[wrong].max(axis=1), kind="stable")][:_WORST]
    figures = []
    for index in shown:
        square, answer = data.squares[index], int(called[index])
        pictures = [_png(np.repeat(square[..., None], 3, axis=2))]
        if data.maps is not None:
            pictures.append(_png(_overlaid(square, evidence(data.maps[index], answer, data.absent))))
        words = (
            f"{data.classes[int(data.labels[index])]}, called {data.classes[answer]} "
            f"({data.probabilities[index, answer]:.2f})"
        )
        figures.append(f"<figure>{''.join(pictures)}<figcaption>{escape(words)}</figcaption></figure>")
    return figures


def _overlaid(square: npt.NDArray[np.uint8], cells: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The map in red over the grey picture."""
    rows, columns = square.shape
    stretched = Image.fromarray(cells).resize((columns, rows), Image.Resampling.BILINEAR)
    heat = np.asarray(stretched) / max(float(cells.max()), 1e-6)
    share = 0.6 * heat[..., None]
    red = np.array([255.0, 40.0, 0.0])
    mixed: npt.NDArray[np.uint8] = ((1 - share) * square[..., None] + share * red).clip(0, 255).astype(np.uint8)
    return mixed


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).resize((_PICTURE, _PICTURE)).save(file, "PNG", optimize=True)
    coded = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" width="{_PICTURE}" height="{_PICTURE}" src="data:image/png;base64,{coded}">'
