"""Pictures of nothing that a model knows, made by chance: what the class "other" is learned from.

No collection holds all that a service may be sent. These families stand for it: noise of every grain, speckle in
layers, round things with rings or sectors, shapes and lettering, and pieces of known pictures cut, shuffled or
overlaid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.float32]  # shape (side, side), 0 to 1


def outlier(known: npt.NDArray[np.uint8], side: int, rng: np.random.Generator) -> Picture:
    """One picture; `known`, shape (pictures, rows, columns), gives the pieces."""
    families = (_noise, _speckle, _round, _shapes)
    if rng.random() < 0.35:
        return _pieces(known, side, rng)
    return families[int(rng.integers(len(families)))](side, rng)


def _noise(side: int, rng: np.random.Generator) -> Picture:
    """Noise whose power falls with frequency, within an outline or none."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    field = _unit(np.fft.irfft2(spectrum / np.maximum(frequency, 1 / side) ** rng.uniform(0, 2.2), s=(side, side)))
    if rng.random() < 0.4:
        field = field * _ellipse(side, rng)
    return field


def _speckle(side: int, rng: np.random.Generator) -> Picture:
    """Speckle over bright and dark layers with a blob or two, fading with depth: like ultrasound."""
    grain = int(rng.integers(1, 4))
    coarse = rng.rayleigh(size=(side // grain + 1, side // grain + 1))
    speckle = _resized(coarse, side)
    row, column = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    wave = sum(rng.uniform(0.01, 0.05) * np.sin(rng.uniform(2, 9) * column + rng.uniform(0, 6)) for _ in range(3))
    layers = _resized(rng.uniform(0.1, 1, size=(int(rng.integers(3, 10)), 1)), side)
    layered = layers[((row + wave).clip(0, 1) * (side - 1)).astype(int), 0]
    for _ in range(int(rng.integers(0, 3))):
        layered = np.where(_ellipse(side, rng, 0.05, 0.25) > 0, layered * rng.uniform(0.05, 0.5), layered)
    picture = _unit(speckle * layered * np.exp(-rng.uniform(0, 2) * row))
    if rng.random() < 0.4:  # a sector of a curved probe
        picture = picture * (np.abs(column - 0.5) < 0.15 + rng.uniform(0.2, 0.8) * row)
    return _unit(picture)


def _round(side: int, rng: np.random.Generator) -> Picture:
    """A round body with rings, sectors, grains or a core, on a dark ground."""
    row, column = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle, squash = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1)
    x, y = row * np.cos(angle) + column * np.sin(angle), (column * np.cos(angle) - row * np.sin(angle)) / squash
    radius, around = np.hypot(x, y) / rng.uniform(0.25, 0.95), np.arctan2(y, x)
    inside = rng.uniform(0.2, 0.8) * np.ones_like(radius)
    if rng.random() < 0.5:
        inside += rng.uniform(0.1, 0.5) * np.cos(rng.uniform(3, 25) * radius + rng.uniform(0, 6))
    if rng.random() < 0.4:
        inside += rng.uniform(0.1, 0.4) * np.cos(int(rng.integers(3, 14)) * around) * (radius > rng.uniform(0, 0.4))
    if rng.random() < 0.5:
        inside += rng.uniform(0.1, 0.5) * (_noise(side, rng) - 0.5)
    if rng.random() < 0.5:
        inside = np.where(radius < rng.uniform(0.1, 0.6), rng.uniform(0, 1.2), inside)
    if rng.random() < 0.5:
        spots = _resized((rng.random((side // 4, side // 4)) < 0.15).astype(float), side)
        inside = inside + rng.uniform(-0.8, 0.8) * spots * (radius < rng.uniform(0.3, 0.9))
    edge = np.where(radius > rng.uniform(0.85, 0.98), rng.uniform(0.3, 1.3), 1.0)
    body = (inside * edge).clip(0.02, 1.5) * (radius < 1)
    return _unit(body + rng.uniform(0, 0.06) * rng.rayleigh(size=body.shape))


def _shapes(side: int, rng: np.random.Generator) -> Picture:
    """Bars, boxes, discs, gradients and rows of short strokes like lettering."""
    row, column = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    picture = rng.uniform(-1, 1) * row + rng.uniform(-1, 1) * column + rng.uniform(0, 1)
    for _ in range(int(rng.integers(1, 9))):
        if rng.random() < 0.5:
            shape = _ellipse(side, rng, 0.03, 0.4) > 0
        else:
            top, left = rng.uniform(0, 0.9, 2)
            high, wide = rng.uniform(0.02, 0.7, 2)
            shape = (row > top) & (row < top + high) & (column > left) & (column < left + wide)
        picture = np.where(shape, rng.uniform(-0.5, 1.5), picture)
    if rng.random() < 0.3:
        strokes = _resized((rng.random((side // 3, side // 2)) < 0.4).astype(float), side)
        picture = np.where((row * 12).astype(int) % 2 == 0, strokes, picture)
    return _unit(picture + rng.uniform(0, 0.2) * rng.normal(size=picture.shape))


def _pieces(known: npt.NDArray[np.uint8], side: int, rng: np.random.Generator) -> Picture:
    """A small piece of one picture, enlarged; or one cut into tiles and shuffled; or two laid over each other."""
    first, second = (known[int(rng.integers(len(known)))].astype(np.float32) / 255 for _ in range(2))
    kind = rng.random()
    if kind < 0.4:
        share = rng.uniform(0.15, 0.35)
        extent = max(6, int(share * len(first)))
        top, left = rng.integers(0, len(first) - extent, 2)
        return _unit(_resized(np.rot90(first[top : top + extent, left : left + extent], int(rng.integers(4))), side))
    if kind < 0.8:
        count = int(rng.integers(3, 7))
        tile = side // count
        square = _resized(first, tile * count)
        tiles = [
            np.rot90(square[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile], int(rng.integers(4)))
            for r in range(count)
            for c in range(count)
        ]
        order = rng.permutation(len(tiles))
        rows = [np.hstack([tiles[i] for i in order[r * count : (r + 1) * count]]) for r in range(count)]
        return _unit(_resized(np.vstack(rows), side))
    return _unit(_resized(first, side) + _resized(np.rot90(second, int(rng.integers(1, 4))), side))


def _ellipse(side: int, rng: np.random.Generator, least: float = 0.2, most: float = 0.6) -> Picture:
    row, column = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    middle, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(least, most, 2)
    inside: Picture = (((row - middle[0]) / radius[0]) ** 2 + ((column - middle[1]) / radius[1]) ** 2 < 1).astype(
        np.float32
    )
    return inside


def _resized(values: npt.NDArray[np.floating], side: int) -> Picture:
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)


def _unit(values: npt.NDArray[np.floating]) -> Picture:
    low, high = np.percentile(values, (0.5, 99.5))
    result: Picture = ((values - low) / max(float(high - low), 1e-6)).clip(0, 1).astype(np.float32)
    return result
