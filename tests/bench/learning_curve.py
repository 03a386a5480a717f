"""Held-out accuracy over the number of reviewed cases, with images of the model's own training and without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.contract import load_contract
from inference.export import load_network
from inference.networks import predict, split_last_layer
from inference.preprocess import cut
from inference.registry import SHIPPED
from inference.training.last_layer import LastLayer, fitted_anew
from inference.training.tuning import stored_features
from tests.bench.learning_department import Slice, as_shown_there

BUNDLE = SHIPPED / "brain_mr_tumour"
COUNTS = (25, 50, 100, 200)
_DRAWS = 5  # departments of each size
_REHEARSED = 60  # slices of each class


def curve(slices: Sequence[Slice], severity: float) -> None:
    """Print the table: means over several departments, with the lowest and the highest of them."""
    used = _used(slices)
    plain, shown = _looks(used, None), _looks(used, severity)
    labels, held, clusters = _facts(used)
    classes = sorted({one.label for one in slices})
    before, known = LastLayer.of(load_network(BUNDLE, len(classes))), stored_features(BUNDLE)
    rows: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    base: list[tuple[float, float]] = []
    for draw in range(_DRAWS):
        rng = np.random.default_rng(draw)
        test, pool = _parted(labels, held, clusters, rng)
        base.append(_both(before, shown[test], plain[test], labels[test]))
        for count in COUNTS:
            cases = np.concatenate([of_class[: count // len(classes)] for of_class in pool])
            trained = np.setdiff1d(np.flatnonzero(~held), cases)
            for rehearsed in (True, False):
                looks, truth, weight = shown[cases], labels[cases], np.ones(len(cases)) / len(cases)
                if rehearsed:
                    looks = np.concatenate([looks, plain[trained]])
                    truth = np.concatenate([truth, labels[trained]])
                    weight = np.concatenate([weight, np.ones(len(trained)) / len(trained)])
                after = fitted_anew(before, known, looks, truth, weight)
                rows.setdefault((count, rehearsed), []).append(_both(after, shown[test], plain[test], labels[test]))
    print(f"0.3.0: {_told(base)}")
    for (count, rehearsed), found_rows in rows.items():
        kind = "with images of its training" if rehearsed else "without"
        print(f"{count:4} cases, {kind:28}: {_told(found_rows)}")


def _used(slices: Sequence[Slice]) -> list[Slice]:
    """All that were held out of the training, and some of it."""
    kept: list[Slice] = [one for one in slices if one.held_out]
    for label in sorted({one.label for one in slices}):
        trained = [one for one in slices if one.label == label and not one.held_out]
        kept += [trained[i] for i in np.random.default_rng(1).permutation(len(trained))[:_REHEARSED]]
    return kept


def _looks(slices: Sequence[Slice], severity: float | None) -> npt.NDArray[np.float32]:
    preprocess = load_contract(BUNDLE / "contract.toml").preprocess
    features, _ = split_last_layer(load_network(BUNDLE, 4))
    squares = []
    for one in slices:
        with Image.open(one.file) as picture:
            grey = np.asarray(picture.convert("L"), dtype=np.float32)
        found = cut(grey if severity is None else as_shown_there(one.file, severity).astype(np.float32), preprocess)
        side = preprocess.size
        squares.append((found[0] * 255).astype(np.uint8) if found else np.zeros((side, side), dtype=np.uint8))
    return predict(features, np.stack(squares))


def _facts(slices: Sequence[Slice]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    classes = [item.label for item in load_contract(BUNDLE / "contract.toml").classes]
    return (
        np.array([classes.index(one.label) for one in slices]),
        np.array([one.held_out for one in slices]),
        np.array([one.cluster for one in slices]),
    )


def _parted(
    labels: npt.NDArray[np.int64],
    held: npt.NDArray[np.bool_],
    clusters: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
    """Indices of the test, a third of the clusters held out; and of each class one slice a cluster for departments.

    Where the clusters held out do not suffice, others of the training follow, as the department shows them.
    """
    test: list[int] = []
    pool: list[npt.NDArray[np.int64]] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero((labels == label) & held)
        numbers = rng.permutation(np.unique(clusters[of_class]))
        chosen = numbers[: len(numbers) // 3]
        test += of_class[np.isin(clusters[of_class], chosen)].tolist()
        firsts = [int(of_class[clusters[of_class] == number][0]) for number in numbers[len(chosen) :]]
        trained = rng.permutation(np.flatnonzero((labels == label) & ~held)).tolist()
        pool.append(np.array(firsts + trained))
    return np.array(test), pool


def _both(
    layer: LastLayer,
    shown: npt.NDArray[np.float32],
    plain: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
) -> tuple[float, float]:
    return _balanced(layer.logits(shown), labels), _balanced(layer.logits(plain), labels)


def _balanced(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    called = logits.argmax(axis=1)
    return float(np.mean([(called[labels == label] == label).mean() for label in np.unique(labels)]))


def _told(found: Sequence[tuple[float, float]]) -> str:
    values = np.array(found)
    words = [f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})" for v in values.T]
    return f"as shown there {words[0]}, as they are {words[1]}"
