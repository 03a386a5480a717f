"""A MONAI bundle from elsewhere: what its `metadata.json` says of its input and outputs, put into a contract.

Such a bundle was written without Wetread in mind. Its contract is made from what it says (MONAI bundle specification,
`network_data_format`), and holds no more: general codes, no calibration, no narrowing of what it may be shown, and a
sentence under every answer that says so. Whoever knows better writes a `contract.toml` and adds the bundle with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_records.errors import BundleError
from inference.bundle_metadata import head, image_and_pred, labels, quoted, read_metadata, required, wording
from inference.contract import preprocess_table
from inference.foreign_volumes import derived_volume_contract, outlines
from inference.preprocess import PreprocessSettings

_ABSENT = re.compile(r"^(no|not) |^no(tumou?r|findings?|disease)$|\b(none|normal|negative|absent|healthy|background)\b")
_LIMITS = (
    "The model came without a contract of its own: what it may be shown was not narrowed, and its codes are general.",
    "Its probabilities are not calibrated.",
)


@dataclass(frozen=True, slots=True)
class Format:
    """What a bundle's network takes and gives."""

    channels: int  # of the input; the grey image is put into each
    size: int  # pixels a side
    value_range: tuple[float, float] | None  # of the input; None: zero mean and unit variance
    labels: tuple[str, ...]  # of the outputs, in their order


def network_format(metadata: Mapping[str, Any]) -> Format:
    """Input and outputs by `metadata.json`. Raises BundleError for what Wetread cannot show to or take from it."""
    image, pred = image_and_pred(metadata)
    if outlines(metadata):
        raise BundleError(
            f"metadata.json: the output is of type {pred.get('type')!r}, format {pred.get('format')!r}; for a "
            "model that outlines what it sees, contract.toml must be of kind 'segmentation'."
        )
    shape = image.get("spatial_shape")
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape) or not shape:
        raise BundleError(f"metadata.json: the input's spatial_shape is {shape!r}; whole numbers are allowed.")
    sides = [side for side in shape if side != 1]
    if len(sides) != 2 or sides[0] != sides[1] or not 16 <= sides[0] <= 1024:
        raise BundleError(f"metadata.json: the input's spatial_shape is {shape}; a square of 16 to 1024 is allowed.")
    channels = image.get("num_channels")
    if channels not in (1, 3):
        raise BundleError(f"metadata.json: the input has {channels!r} channels; 1 or 3 are allowed.")
    return Format(channels, sides[0], _value_range(image.get("value_range")), labels(pred))


def derived_contract(bundle: Path) -> str:
    """`contract.toml` for a bundle that has none. Raises BundleError that says what `metadata.json` lacks."""
    metadata = read_metadata(bundle)
    if outlines(metadata):
        return derived_volume_contract(bundle, metadata)
    form = network_format(metadata)
    image, _ = image_and_pred(metadata)
    names = form.labels if len(form.labels) > 1 else (f"no {form.labels[0]}", form.labels[0])
    absent = [label for label in names if _ABSENT.search(label.lower().replace("_", " "))]
    if len(absent) != 1:
        raise BundleError(
            f"metadata.json: of the outputs {', '.join(names)}, it is not clear which one means that nothing is "
            "there; add the bundle with a contract.toml of your own."
        )
    lines = [
        *head(bundle, metadata),
        "",
        "[question]",
        *_CODES,
        "",
    ]
    for label in names:
        presence = "absent" if label in absent else "present"
        lines += ["[[classes]]", f"label = {quoted(label)}", f"wording = {quoted(wording(label))}"]
        lines += [f"presence = {quoted(presence)}", *_CODES, ""]
    needed = required(image, _LIMITS, time_limit_s=300, memory_limit_mb=4096, batch_size=16)
    settings = PreprocessSettings(size=form.size, crop="none", margin=0.0, low_percentile=0.0, high_percentile=100.0)
    return "\n".join([*lines, *needed, preprocess_table(settings), "[calibration]", "temperature = 1.0", ""])


def trained_from_reviews(bundle: Path) -> bool:
    """Whether the bundle says that reviewed cases trained it; one that says nothing readable is refused elsewhere."""
    try:
        lineage = read_metadata(bundle).get("lineage")
    except BundleError:
        return False
    return isinstance(lineage, dict) and "reviews" in lineage


# DCM 121071 Finding; SCT 123037004 Body structure (PS3.16, by the code dictionary of pydicom 3.0.2).
_CODES = (
    'code = { scheme = "DCM", value = "121071", meaning = "Finding" }',
    'site = { scheme = "SCT", value = "123037004", meaning = "Body structure" }',
)


def _value_range(values: object) -> tuple[float, float] | None:
    if values in (None, [], "n/a"):
        return None
    if isinstance(values, Sequence) and len(values) == 2 and all(isinstance(v, int | float) for v in values):
        low, high = (float(value) for value in values)
        if low < high:
            return low, high
    raise BundleError(f"metadata.json: the input's value_range is {values!r}; two numbers are allowed, or none.")
