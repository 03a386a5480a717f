"""What a model was shown, in numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fhir_records.errors import BundleError
from inference.answers import Refused, answer_from_json, answer_to_json
from inference.backends import Outputs
from inference.drift import REFERENCE_FILE, InputFigures, Tally, load_reference, reference

SHIFTED = np.random.default_rng(1).exponential(size=(20, 1, 32, 32)).astype(np.float32)


class _Distant:
    """A network for which every image lies as far from training as its first pixel says."""

    def run(self, inputs: np.ndarray) -> Outputs:
        return Outputs(np.zeros((len(inputs), 2), np.float32), inputs[:, 0, 0, 0])


def test_figures_do_not_depend_on_batches() -> None:
    """However the images came, their figures are the same, and are shares."""
    whole, parts = Tally(_Distant()), Tally(_Distant())
    whole.run(SHIFTED)
    for start in range(0, 20, 7):
        parts.run(SHIFTED[start : start + 7])
    figures = whole.figures()
    assert figures == parts.figures()
    assert figures is not None
    assert (figures.images, len(figures.intensity), len(figures.distances)) == (20, 16, 15)
    assert sum(figures.intensity) == pytest.approx(1, abs=1e-4)
    assert sum(figures.distances) == pytest.approx(1, abs=1e-4)


def test_nothing_shown_has_no_figures() -> None:
    """A study that was refused before the network has none."""
    assert Tally(_Distant()).figures() is None


def test_the_reference_counts_as_reads_are_counted(tmp_path: Path) -> None:
    """Training's file, read back, has the same shares as a read of the same images."""
    stored = reference(SHIFTED[:, 0], SHIFTED[:, 0, 0, 0])
    (tmp_path / REFERENCE_FILE).write_text(json.dumps(stored), encoding="utf-8")
    read = load_reference(tmp_path)
    tally = Tally(_Distant())
    tally.run(SHIFTED)
    figures = tally.figures()
    assert read is not None
    assert figures is not None
    assert (read.intensity, read.distances) == (figures.intensity, figures.distances)


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"intensity": [1.0], "distances": []}', '{"intensity": ["a"], "distances": []}']
)
def test_a_reference_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """A drift.json that holds something else is told; none at all is no fault."""
    assert load_reference(tmp_path) is None
    (tmp_path / REFERENCE_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"drift\.json"):
        load_reference(tmp_path)


def test_figures_travel_with_the_answer() -> None:
    """An answer carries its figures through the pipe, and is the same answer with or without them."""
    figures = InputFigures(3, (0.25, 0.75), (1.0,))
    answer = Refused("unfamiliar", "Not read, because it is a fruit.", figures)
    back = answer_from_json(json.loads(json.dumps(answer_to_json(answer))))
    assert back.figures == figures
    assert back == Refused("unfamiliar", "Not read, because it is a fruit.")
