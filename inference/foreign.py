"""A MONAI bundle from elsewhere: what its `metadata.json` says of its input and outputs, put into a contract.

Such a bundle was written without Wetread in mind. Its contract is made from what it says (MONAI bundle specification,
`network_data_format`), and holds no more: general codes, no calibration, no narrowing of what it may be shown, and a
sentence under every answer that says so. Whoever knows better writes a `contract.toml` and adds the bundle with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_records.errors import BundleError
from inference.contract import preprocess_table
from inference.preprocess import PreprocessSettings

_ABSENT = re.compile(r"^(no|not) |^no(tumou?r|findings?|disease)$|\b(none|normal|negative|absent|healthy|background)\b")
# Defined terms of Modality (PS3.3 section C.7.3.1.1.1) by the words that bundles use.
_MODALITIES: Mapping[str, tuple[str, ...]] = {
    "MR": ("MR",),
    "MRI": ("MR",),
    "CT": ("CT",),
    "XR": ("CR", "DX"),
    "X-RAY": ("CR", "DX"),
    "XRAY": ("CR", "DX"),
    "CR": ("CR", "DX"),
    "DX": ("CR", "DX"),
    "MG": ("MG",),
    "US": ("US",),
    "ULTRASOUND": ("US",),
    "PT": ("PT",),
    "PET": ("PT",),
    "NM": ("NM",),
}
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
    image, pred = _image_and_pred(metadata)
    kind, form = str(pred.get("type", "")), str(pred.get("format", ""))
    if "segmentation" in (kind + form).lower() or len(pred.get("spatial_shape") or ()) > 0:
        raise BundleError(
            f"metadata.json: the output is of type {kind!r}, format {form!r}; a model that outlines what it sees "
            "cannot be used yet, one that classifies can."
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
    return Format(channels, sides[0], _value_range(image.get("value_range")), _labels(pred))


def derived_contract(bundle: Path) -> str:
    """`contract.toml` for a bundle that has none. Raises BundleError that says what `metadata.json` lacks."""
    metadata = read_metadata(bundle)
    form = network_format(metadata)
    image, _ = _image_and_pred(metadata)
    labels = form.labels if len(form.labels) > 1 else (f"no {form.labels[0]}", form.labels[0])
    absent = [label for label in labels if _ABSENT.search(label.lower().replace("_", " "))]
    if len(absent) != 1:
        raise BundleError(
            f"metadata.json: of the outputs {', '.join(labels)}, it is not clear which one means that nothing is "
            "there; add the bundle with a contract.toml of your own."
        )
    name = re.sub(r"[^a-z0-9]+", "_", bundle.resolve().name.lower()).strip("_")
    title = str(metadata.get("name") or metadata.get("task") or name)
    authors = metadata.get("authors") or metadata.get("copyright") or "unknown"
    head = [
        f"name = {_quoted(name if name[:1].isalpha() else f'model_{name}')}",
        f"version = {_quoted(str(metadata.get('version') or '0'))}",
        f"title = {_quoted(title)}",
        f"manufacturer = {_quoted(authors if isinstance(authors, str) else ', '.join(map(str, authors)))}",
        "",
        "[question]",
        *_CODES,
        "",
    ]
    for label in labels:
        presence = "absent" if label in absent else "present"
        head += ["[[classes]]", f"label = {_quoted(label)}", f"wording = {_quoted(_wording(label))}"]
        head += [f"presence = {_quoted(presence)}", *_CODES, ""]
    settings = PreprocessSettings(size=form.size, crop="none", margin=0.0, low_percentile=0.0, high_percentile=100.0)
    return "\n".join([*head, *_required(image), preprocess_table(settings), "[calibration]", "temperature = 1.0", ""])


def trained_from_reviews(bundle: Path) -> bool:
    """Whether the bundle says that reviewed cases trained it; one that says nothing readable is refused elsewhere."""
    try:
        lineage = read_metadata(bundle).get("lineage")
    except BundleError:
        return False
    return isinstance(lineage, dict) and "reviews" in lineage


def read_metadata(bundle: Path) -> dict[str, Any]:
    """`configs/metadata.json`. Raises BundleError."""
    try:
        document = json.loads((bundle / "configs/metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"configs/metadata.json of {bundle.name} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"configs/metadata.json of {bundle.name} is no JSON object.")
    return document


# DCM 121071 Finding; SCT 123037004 Body structure (PS3.16, by the code dictionary of pydicom 3.0.2).
_CODES = (
    'code = { scheme = "DCM", value = "121071", meaning = "Finding" }',
    'site = { scheme = "SCT", value = "123037004", meaning = "Body structure" }',
)


def _required(image: Mapping[str, Any]) -> list[str]:
    word = str(image.get("modality", "")).strip().upper()
    if word not in _MODALITIES:
        raise BundleError(
            f"metadata.json: the input's modality is {image.get('modality')!r}; allowed are "
            f"{', '.join(sorted(_MODALITIES))}, or a contract.toml of your own."
        )
    return [
        "[required]",
        f"modality = {json.dumps(_MODALITIES[word])}",
        "sop_class = []",
        'photometric = ["MONOCHROME1", "MONOCHROME2"]',
        'image_type_excluded = ["LOCALIZER"]',
        "body_part = []",
        'anatomy = "what the model was trained on"',
        "min_images = 1",
        "min_matrix = 16",
        "min_head_images = 1",
        "",
        "[limits]",
        f"always = {json.dumps(_LIMITS)}",
        "time_limit_s = 300",
        "memory_limit_mb = 4096",
        "batch_size = 16",
        "",
    ]


def _image_and_pred(metadata: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    data_format = metadata.get("network_data_format")
    found = []
    for key in ("inputs", "outputs"):
        named = data_format.get(key) if isinstance(data_format, Mapping) else None
        if not isinstance(named, Mapping) or len(named) != 1 or not all(isinstance(v, Mapping) for v in named.values()):
            raise BundleError(f"metadata.json: network_data_format.{key} must name one entry; it is {named!r:.200}.")
        found.append(next(iter(named.values())))
    return found[0], found[1]


def _labels(pred: Mapping[str, Any]) -> tuple[str, ...]:
    count, names = pred.get("num_channels"), pred.get("channel_def")
    whole = isinstance(names, Mapping) and sorted(names) == sorted(str(number) for number in range(len(names)))
    if not isinstance(names, Mapping) or not whole or count != len(names) or not names:
        raise BundleError(
            f"metadata.json: the output's channel_def is {names!r:.200} for num_channels {count!r}; a name for each "
            'channel is needed, {"0": …, "1": …}.'
        )
    return tuple(str(names[str(number)]).strip() for number in range(len(names)))


def _value_range(values: object) -> tuple[float, float] | None:
    if values in (None, [], "n/a"):
        return None
    if isinstance(values, Sequence) and len(values) == 2 and all(isinstance(v, int | float) for v in values):
        low, high = (float(value) for value in values)
        if low < high:
            return low, high
    raise BundleError(f"metadata.json: the input's value_range is {values!r}; two numbers are allowed, or none.")


def _wording(label: str) -> str:
    words = label.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _quoted(value: str) -> str:
    """As a TOML basic string, which JSON's escapes fit."""
    return json.dumps(" ".join(value.split()), ensure_ascii=False)
