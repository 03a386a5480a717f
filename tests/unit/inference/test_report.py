"""The report of a training run."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from inference.training import curves, svg
from inference.training.report_html import Epoch, ReportData, write_report

CLASSES = ("a <tumour>", "nothing")


def _data(**changed: object) -> ReportData:
    """Twelve images of two classes, two of them called wrong."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 6)
    of_truth = np.array([0.9, 0.8, 0.7, 0.95, 0.2, 0.6, 0.85, 0.4, 0.75, 0.99, 0.9, 0.8])
    probabilities = np.where(np.eye(2)[labels] == 1, of_truth[:, None], 1 - of_truth[:, None])
    given = {
        "title": "A <model> 1.0",
        "classes": CLASSES,
        "absent": 1,
        "counts": {"train": {"a <tumour>": 30, "nothing": 20}, "validation": {"a <tumour>": 6, "nothing": 6}},
        "probabilities": probabilities,
        "labels": labels,
        "clusters": np.repeat(np.arange(6), 2),
        "squares": rng.integers(0, 255, (12, 32, 32), dtype=np.uint8),
        "maps": rng.normal(size=(12, 2, 3, 3)).astype(np.float32),
        "history": (Epoch(1, 0.9, 0.5), Epoch(2, 0.4, 0.8)),
        "network_summary": "ResNet, 1,000 parameters",
        "baselines": {"seed": {"accuracy": {"value": 0.77, "low": 0.7, "high": 0.8}}},
    }
    return ReportData(**{**given, **changed})  # type: ignore[arg-type]


class _Shown(HTMLParser):
    """Counts elements and gathers words."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_report_shows_figures_plots_and_errors(tmp_path: Path) -> None:
    """One page holds every plot, both wrong images with their maps, baselines beside the model, and no script."""
    page = write_report(tmp_path / "new", _data())
    shown = _Shown()
    shown.feed(page.read_text(encoding="utf-8"))
    assert shown.elements.count("svg") == 7
    assert shown.elements.count("img") == 4
    assert "script" not in shown.elements
    assert "model" not in shown.elements
    assert "A <model> 1.0" in shown.words
    assert "0.77 (0.7 to 0.8)" in shown.words
    assert "a <tumour>, called nothing (0.80)" in shown.words


def test_the_json_has_the_same_figures(tmp_path: Path) -> None:
    """Accuracy, class by class figures and the confusion come out as they were counted, within their intervals."""
    write_report(tmp_path, _data())
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    accuracy = record["figures"]["accuracy"]
    assert accuracy["value"] == pytest.approx(10 / 12, abs=1e-4)
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert record["figures"]["sensitivity, nothing"]["value"] == pytest.approx(5 / 6, abs=1e-4)
    assert record["confusion"] == [[5, 1], [1, 5]]
    assert {"Brier score", "expected calibration error", "balanced accuracy"} <= set(record["figures"])


def test_a_model_without_maps_or_errors_has_a_report_too(tmp_path: Path) -> None:
    """What a run lacks is left out or said, and a figure that is undefined is null in JSON."""
    sure = np.eye(2)[np.array([0, 1] * 6)]
    data = _data(
        probabilities=sure[:, ::-1] * 0 + np.array([1.0, 0.0]), labels=np.zeros(12, int), maps=None, history=()
    )
    page = write_report(tmp_path, data).read_text(encoding="utf-8")
    assert "No answer was wrong." in page
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert record["figures"]["sensitivity, nothing"]["value"] is None


def test_plots_are_sound_xml() -> None:
    """Names with markup in them stay names."""
    drawn = svg.lines(svg.Axes("A & <b>", "x", "y"), [svg.Curve("<c>", [0, 1], [0, float("nan")])])
    assert ElementTree.fromstring(drawn).get("aria-label") == "A & <b>"
    ElementTree.fromstring(svg.bars(svg.Axes("t", "", ""), ["<n>"], [("g", [0.5])]))


def test_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    """The area is the probability that a positive scores above a negative, ties counting half."""
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.6])
    truth = np.array([False, True, False, True, False])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth] for n in scores[~truth]]
    assert curves.area_under_roc(scores, truth) == pytest.approx(np.mean(pairs))
    assert np.isnan(curves.area_under_roc(scores, np.ones(5, bool)))


def test_risk_grows_to_the_error_of_all() -> None:
    """Answering everything, the risk is one minus the accuracy; the surest answers alone have less."""
    data = _data()
    answered, risk = curves.risk_coverage(data.probabilities, data.labels)
    assert answered[-1] == 1
    assert risk[-1] == pytest.approx(2 / 12)
    assert risk[0] == 0


def test_precision_and_recall_meet_at_all() -> None:
    """With every image called positive, recall is 1 and precision the share of positives."""
    recall, precision = curves.precision_recall(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]))
    assert (recall[-1], precision[-1]) == (1, pytest.approx(2 / 3))
    assert (recall[0], precision[0]) == (0.5, 1)


def test_the_brier_score_is_nought_for_the_truth() -> None:
    """Certainty in the truth scores 0, certainty in the wrong class 2."""
    assert curves.brier(np.eye(3), np.arange(3)) == 0
    assert curves.brier(np.eye(2), np.array([1, 0])) == 2
