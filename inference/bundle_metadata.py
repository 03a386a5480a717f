"""What a MONAI bundle says of itself in `configs/metadata.json`, and the words of a contract made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fhir_records.errors import BundleError

# Defined terms of Modality (PS3.3 section C.7.3.1.1.1) by the words that bundles use.
MODALITIES: Mapping[str, tuple[str, ...]] = {
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


def read_metadata(bundle: Path) -> dict[str, Any]:
    """`configs/metadata.json`. Raises BundleError."""
    try:
        document = json.loads((bundle / "configs/metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"configs/metadata.json of {bundle.name} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"configs/metadata.json of {bundle.name} is no JSON object.")
    return document


def image_and_pred(metadata: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The one input and the one output. Raises BundleError where there are others."""
    data_format = metadata.get("network_data_format")
    found = []
    for key in ("inputs", "outputs"):
        named = data_format.get(key) if isinstance(data_format, Mapping) else None
        if not isinstance(named, Mapping) or len(named) != 1 or not all(isinstance(v, Mapping) for v in named.values()):
            raise BundleError(f"metadata.json: network_data_format.{key} must name one entry; it is {named!r:.200}.")
        found.append(next(iter(named.values())))
    return found[0], found[1]


def labels(pred: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the output's channels, in their order. Raises BundleError where one has none."""
    count, names = pred.get("num_channels"), pred.get("channel_def")
    whole = isinstance(names, Mapping) and sorted(names) == sorted(str(number) for number in range(len(names)))
    if not isinstance(names, Mapping) or not whole or count != len(names) or not names:
        raise BundleError(
            f"metadata.json: the output's channel_def is {names!r:.200} for num_channels {count!r}; a name for each "
            'channel is needed, {"0": …, "1": …}.'
        )
    return tuple(str(names[str(number)]).strip() for number in range(len(names)))


def head(bundle: Path, metadata: Mapping[str, Any]) -> list[str]:
    """Name, version, title and manufacturer, as lines of TOML."""
    name = re.sub(r"[^a-z0-9]+", "_", bundle.resolve().name.lower()).strip("_")
    title = str(metadata.get("name") or metadata.get("task") or name)
    authors = metadata.get("authors") or metadata.get("copyright") or "unknown"
    return [
        f"name = {quoted(name if name[:1].isalpha() else f'model_{name}')}",
        f"version = {quoted(str(metadata.get('version') or '0'))}",
        f"title = {quoted(title)}",
        f"manufacturer = {quoted(authors if isinstance(authors, str) else ', '.join(map(str, authors)))}",
    ]


def required(
    image: Mapping[str, Any], limits: Sequence[str], *, time_limit_s: int, memory_limit_mb: int, batch_size: int
) -> list[str]:
    """What the model may be shown and may use, as lines of TOML. Raises BundleError for a modality without a name."""
    word = str(image.get("modality", "")).strip().upper()
    if word not in MODALITIES:
        raise BundleError(
            f"metadata.json: the input's modality is {image.get('modality')!r}; allowed are "
            f"{', '.join(sorted(MODALITIES))}, or a contract.toml of your own."
        )
    return [
        "[required]",
        f"modality = {json.dumps(MODALITIES[word])}",
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
        f"always = {json.dumps(list(limits))}",
        f"time_limit_s = {time_limit_s}",
        f"memory_limit_mb = {memory_limit_mb}",
        f"batch_size = {batch_size}",
        "",
    ]


def wording(label: str) -> str:
    """The label as people write it."""
    words = label.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def quoted(value: str) -> str:
    """As a TOML basic string, which JSON's escapes fit."""
    return json.dumps(" ".join(value.split()), ensure_ascii=False)
