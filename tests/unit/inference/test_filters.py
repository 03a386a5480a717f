"""The optional filters of the preprocessing."""

from __future__ import annotations

import numpy as np
import pytest

from inference.filters import FILTERS, apply_filter
from inference.preprocess import PreprocessSettings, prepare


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_a_flat_picture_and_quiets_noise(name: str) -> None:
    """A picture of one grey stays as it is; noise on it is weaker afterwards."""
    flat = np.full((20, 30), 0.4, dtype=np.float32)
    noisy = flat + np.random.default_rng(0).normal(scale=0.05, size=flat.shape).astype(np.float32)
    assert apply_filter(name, flat) == pytest.approx(flat, abs=1e-6)
    assert apply_filter(name, noisy).std() < 0.8 * noisy.std()
    assert apply_filter(name, noisy).dtype == np.float32


def test_median_and_bilateral_keep_an_edge_that_gaussian_blurs() -> None:
    """Beside a step the Gaussian lies between its sides; the others stay on theirs."""
    step = np.zeros((16, 16), dtype=np.float32)
    step[:, 8:] = 1.0
    beside = {name: float(apply_filter(name, step)[8, 7]) for name in FILTERS}
    assert beside["gaussian"] == pytest.approx(0.25)
    assert beside["median"] == 0.0
    assert beside["bilateral"] < 0.01


def test_the_contract_s_filters_are_applied_before_the_network() -> None:
    """Preprocessing with a filter gives another, smoother picture than without."""
    picture = np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float32)
    plain = prepare(picture, PreprocessSettings(size=32, crop="none"))
    smooth = prepare(picture, PreprocessSettings(size=32, crop="none", filters=("gaussian",)))
    assert plain is not None
    assert smooth is not None
    assert np.abs(np.diff(smooth[0])).mean() < np.abs(np.diff(plain[0])).mean()
