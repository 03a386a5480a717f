"""From a grey image to what the network sees; the same steps in training and in serving.

The steps are deterministic, and numpy and Pillow alone do them: the process that serves a model must not load torch.
What surrounds the head (borders, burnt-in text, the noise floor of one scanner) tells the data sets of the classes
apart better than any tumour does, so it is cut away before the network can look at it: crop to the head, blank what
lies outside it, pad to a square, resize, scale by percentiles of the head alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.filters import apply_filter

Float2D = npt.NDArray[np.float32]  # shape (rows, columns)
Mask = npt.NDArray[np.bool_]  # shape (rows, columns)

# head: the largest bright region, all else blanked. frame: the picture without its uniform border, nothing blanked.
# none: the whole picture, nothing blanked. Each is padded to a square.
CROPS = ("head", "frame", "none")
_BORDER = 0.08  # of the picture's range: what differs less from the border's grey is border
_GRID = 64  # cells a side of the coarse grid that the head is looked for in


@dataclass(frozen=True, slots=True)
class PreprocessSettings:
    """The numbers of the preprocessing; stored in the bundle's contract, so that serving repeats training."""

    size: int = 144  # pixels a side of the network's square input
    margin: float = 0.03  # added around the head, as a share of its longer side
    foreground: float = 0.35  # a cell is bright above this share of the mean of the brighter half of the picture
    low_percentile: float = 1.0  # of the pixels of the head; becomes 0
    high_percentile: float = 99.5  # of the pixels of the head; becomes 1
    crop: str = "head"  # one of CROPS: what the square is cut from
    filters: tuple[str, ...] = ()  # of `filters.FILTERS`, in this order, on the square


@dataclass(frozen=True, slots=True)
class Head:
    """Where the head lies in an image, as far as its brightness tells."""

    top: int  # first row
    bottom: int  # one past the last row
    left: int  # first column
    right: int  # one past the last column
    mask: Mask  # of the whole image: True on the head, its cavities filled
    fraction: float  # share of the image that the head covers
    fill: float  # share of its bounding box that the head covers


def find_head(image: Float2D, settings: PreprocessSettings) -> Head | None:
    """The largest connected bright region of `image`, with its cavities filled; None where nothing is bright."""
    coarse = _resize(image, _GRID, _GRID)
    coarse = coarse - float(np.percentile(coarse, 2))
    upper = coarse[coarse > coarse.mean()]
    if not upper.size:
        return None
    region = _largest_region(coarse > settings.foreground * float(upper.mean()))
    if not region.any():
        return None
    filled = _fill(region)
    rows, columns = image.shape
    scaled = Image.fromarray(filled.astype(np.uint8) * 255).resize((columns, rows), Image.Resampling.BILINEAR)
    mask: Mask = np.asarray(scaled) > 64  # 64, not 128: half a cell of margin, so that the scalp is not shaved
    used_rows, used_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not used_rows.size or not used_columns.size:
        return None
    top, bottom = int(used_rows[0]), int(used_rows[-1]) + 1
    left, right = int(used_columns[0]), int(used_columns[-1]) + 1
    covered = int(mask.sum())
    return Head(top, bottom, left, right, mask, covered / mask.size, covered / ((bottom - top) * (right - left)))


def crop_and_scale(image: Float2D, head: Head, settings: PreprocessSettings) -> Float2D:
    """The head alone, in a square of `settings.size` pixels, 0 (background) to 1.

    Scaling takes the percentiles of the head's own pixels, so neither background nor field of view moves it.
    """
    low, high = np.percentile(image[head.mask], (settings.low_percentile, settings.high_percentile))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0) * head.mask
    box = scaled[head.top : head.bottom, head.left : head.right].astype(np.float32)
    height, width = box.shape
    side = round(max(height, width) * (1 + 2 * settings.margin))
    above, before = (side - height) // 2, (side - width) // 2
    square = np.pad(box, ((above, side - height - above), (before, side - width - before)))
    return np.clip(_resize(square, settings.size, settings.size), 0.0, 1.0)


def standardise(square: Float2D) -> Float2D:
    """Zero mean and unit variance over the picture: the last step before the network, after any augmentation."""
    result: Float2D = ((square - square.mean()) / max(float(square.std()), 1e-3)).astype(np.float32)
    return result


def find_subject(image: Float2D, settings: PreprocessSettings) -> Head | None:
    """What `settings.crop` cuts from `image`, as a region of it; None where the picture shows nothing."""
    if settings.crop == "head":
        return find_head(image, settings)
    rows, columns = image.shape
    low, high = float(image.min()), float(image.max())
    if not high > low:
        return None
    top, bottom, left, right = 0, rows, 0, columns
    if settings.crop == "frame":
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        spread = float(np.percentile(image, settings.high_percentile)) - low
        shown = np.abs(image - np.median(edge)) > _BORDER * max(spread, 1e-6)
        used_rows = np.flatnonzero(shown.mean(axis=1) > 0.02)
        used_columns = np.flatnonzero(shown.mean(axis=0) > 0.02)
        if not used_rows.size or not used_columns.size:
            return None
        top, bottom = int(used_rows[0]), int(used_rows[-1]) + 1
        left, right = int(used_columns[0]), int(used_columns[-1]) + 1
    mask: Mask = np.zeros(image.shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return Head(top, bottom, left, right, mask, (bottom - top) * (right - left) / image.size, 1.0)


def cut(image: Float2D, settings: PreprocessSettings) -> tuple[Float2D, Head] | None:
    """The square that `standardise` takes, 0 to 1, and what it was cut from; None where the picture shows nothing."""
    subject = find_subject(image, settings)
    if subject is None:
        return None
    square = crop_and_scale(image, subject, settings) if settings.crop == "head" else _whole(image, subject, settings)
    for name in settings.filters:
        square = apply_filter(name, square)
    return square, subject


def prepare(image: Float2D, settings: PreprocessSettings) -> tuple[Float2D, Head] | None:
    """All steps: what the network takes, shape (size, size), and the head it was cut from; None where there is none."""
    found = cut(image, settings)
    return None if found is None else (standardise(found[0]), found[1])


def _whole(image: Float2D, subject: Head, settings: PreprocessSettings) -> Float2D:
    """The box of the subject, nothing blanked, scaled by its own percentiles and padded to a square."""
    box = image[subject.top : subject.bottom, subject.left : subject.right]
    height, width = box.shape
    longer = max(height, width)
    rows, columns = (max(1, round(settings.size * side / longer)) for side in (height, width))
    small = _resize(box, rows, columns)
    low, high = np.percentile(small, (settings.low_percentile, settings.high_percentile))
    scaled = np.clip((small - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    above, before = (settings.size - rows) // 2, (settings.size - columns) // 2
    square: Float2D = np.pad(
        scaled, ((above, settings.size - rows - above), (before, settings.size - columns - before))
    ).astype(np.float32)
    return square


def _resize(image: Float2D, rows: int, columns: int) -> Float2D:
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR), dtype=np.float32)


def _largest_region(bright: Mask) -> Mask:
    """The largest 4-connected region of `bright`: runs of cells, joined where they touch those of the row above."""
    edges = np.diff(np.pad(bright, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = (values.tolist() for values in np.nonzero(edges == 1))
    ends = np.nonzero(edges == -1)[1].tolist()
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0  # the first run of the row above that may still touch
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] <= starts[run]):
            above += 1
        touching = above
        while rows[touching] == row - 1 and starts[touching] < ends[run]:
            parent[root(touching)] = root(run)
            touching += 1
    sizes: dict[int, int] = {}
    for run in range(len(rows)):
        sizes[root(run)] = sizes.get(root(run), 0) + ends[run] - starts[run]
    region = np.zeros_like(bright)
    if sizes:
        largest = max(sizes, key=lambda run: sizes[run])
        for run, row in enumerate(rows):
            if root(run) == largest:
                region[row, starts[run] : ends[run]] = True
    return region


def _fill(region: Mask) -> Mask:
    """Everything that the region encloses from left and right and from above and below, and the region itself."""
    across = np.logical_or.accumulate(region, axis=1) & np.logical_or.accumulate(region[:, ::-1], axis=1)[:, ::-1]
    down = np.logical_or.accumulate(region, axis=0) & np.logical_or.accumulate(region[::-1], axis=0)[::-1]
    filled: Mask = region | (across & down)
    return filled
