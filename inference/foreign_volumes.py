"""A MONAI bundle from elsewhere that outlines what it sees: its preprocessing and its windows, put into a contract.

What is done to the images before the network sees them stands in `configs/inference.json` as a list of transforms.
Nothing of it is run: the plain numbers of those transforms that Wetread repeats are taken over, and a bundle with
another one is refused by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_records.errors import BundleError
from inference.bundle_metadata import head, image_and_pred, labels, quoted, required, wording

_LIMITS = (
    "The model came without a contract of its own: what it may be shown was not narrowed, and its codes are general.",
)
_BACKGROUND = re.compile(r"^(background|bg|none|nothing|other|air)$", re.IGNORECASE)
# They change neither the voxels' places nor their values, or only cut away what every window may as well see.
_WITHOUT_EFFECT = frozenset(
    {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "CastToTyped", "CropForegroundd", "Identityd"}
)
_INTENSITIES = frozenset({"ScaleIntensityRanged", "ScaleIntensityRangePercentilesd", "NormalizeIntensityd",
                          "ScaleIntensityd"})  # fmt: skip
_PALETTE = ((246, 186, 70), (112, 178, 236), (190, 164, 240), (120, 214, 150), (240, 140, 130), (236, 220, 120))

# PS3.16 CID 7150, segmentation property categories
_STRUCTURE, _MORPHOLOGY = ("91723000", "Anatomical Structure"), ("49755003", "Morphologically Abnormal Structure")
# PS3.16 CID 7151, segmentation property types, by the words that bundles use (code dictionary of pydicom 3.0.2)
_ORGANS: Mapping[str, tuple[str, str]] = {
    "spleen": ("78961009", "Spleen"),
    "liver": ("10200004", "Liver"),
    "pancreas": ("15776009", "Pancreas"),
    "kidney": ("64033007", "Kidney"),
    "heart": ("80891009", "Heart"),
    "lung": ("39607008", "Lung"),
    "lungs": ("39607008", "Lung"),
    "brain": ("12738006", "Brain"),
    "prostate": ("41216001", "Prostate"),
    "gallbladder": ("28231008", "Gallbladder"),
    "bladder": ("89837001", "Bladder"),
    "femur": ("71341001", "Femur"),
    "head": ("69536005", "Head"),
}
_ABNORMAL: Mapping[str, tuple[str, str]] = {
    "tumor": ("108369006", "Neoplasm"),
    "tumour": ("108369006", "Neoplasm"),
    "lesion": ("52988006", "Lesion"),
    "mass": ("4147007", "Mass"),
    "edema": ("79654002", "Edema"),
    "oedema": ("79654002", "Edema"),
}
_TISSUE, _BODY = ("85756007", "Tissue"), ("123037004", "Body structure")


@dataclass(frozen=True, slots=True)
class VolumeFormat:
    """What a bundle's network takes and gives."""

    dimensions: int  # 2 or 3
    size: tuple[int, ...] | None  # of the input; None where it may have any
    labels: tuple[str, ...]  # of the output's channels, in their order


def outlines(metadata: Mapping[str, Any]) -> bool:
    """Whether the bundle's network gives a number for each place of the image. Raises BundleError."""
    _, pred = image_and_pred(metadata)
    said = f"{pred.get('type', '')} {pred.get('format', '')}".lower()
    return "segmentation" in said or len(pred.get("spatial_shape") or ()) > 0


def volume_format(metadata: Mapping[str, Any]) -> VolumeFormat:
    """Input and output by `metadata.json`. Raises BundleError for what Wetread cannot show to or take from it."""
    image, pred = image_and_pred(metadata)
    shape = image.get("spatial_shape")
    if not isinstance(shape, list) or len(shape) not in (2, 3):
        raise BundleError(f"metadata.json: the input's spatial_shape is {shape!r}; two or three sides are allowed.")
    if image.get("num_channels") != 1:
        raise BundleError(
            f"metadata.json: the input has {image.get('num_channels')!r} channels; a model that outlines is shown one "
            "series, so that 1 is allowed."
        )
    whole = all(isinstance(side, int) and side > 0 for side in shape)
    return VolumeFormat(len(shape), tuple(shape) if whole else None, labels(pred))


def derived_volume_contract(bundle: Path, metadata: Mapping[str, Any]) -> str:
    """`contract.toml` for a bundle that has none. Raises BundleError that says what it lacks or what cannot be done."""
    form = volume_format(metadata)
    config = _config(bundle)
    image, _ = image_and_pred(metadata)
    activation, threshold = _activation(config, form)
    named = list(enumerate(form.labels))
    if activation == "softmax":
        if len(named) < 2 or not _BACKGROUND.match(form.labels[0]):
            raise BundleError(
                f"metadata.json: of the output's channels {', '.join(form.labels)} the first should be the background, "
                "where each voxel has one answer; add the bundle with a contract.toml of your own."
            )
        named = named[1:]
    elif _BACKGROUND.match(form.labels[0]):
        named = named[1:]
    window, batch_size = _window(config, form)
    limits = required(image, _LIMITS, time_limit_s=1800, memory_limit_mb=8192, batch_size=batch_size)
    lines = [*head(bundle, metadata), 'kind = "segmentation"', "", *_segments([(n, str(x)) for n, x in named]), *limits]
    lines += ["[preprocess]", *_preprocess(config, form.dimensions), "", *window, "", "[output]"]
    lines += [f'activation = "{activation}"', f"threshold = {threshold}", 'probability = "largest_part"', ""]
    return "\n".join([*lines, "[calibration]", "temperature = 1.0", ""])


def _segments(named: Sequence[tuple[int, str]]) -> list[str]:
    """The question and the segments; where something abnormal is among them, that is what is asked for."""
    coded = [(channel, label, *_code_of(label)) for channel, label in named]
    abnormal = any(category is _MORPHOLOGY for *_, category in coded)
    answering = [entry for entry in coded if not abnormal or entry[3] is _MORPHOLOGY]
    organs = {code for _, _, code, category in coded if category is _STRUCTURE and code is not _TISSUE}
    site = next(iter(organs)) if len(organs) == 1 else _BODY
    codes = {code for _, _, code, _ in answering}
    known = len(codes) == 1 and _TISSUE not in codes
    asked = ("SCT", *next(iter(codes))) if known else ("DCM", "121071", "Finding")
    lines = ["[question]", f"code = {_concept(*asked)}", f"site = {_concept('SCT', *site)}", ""]
    for place, (channel, label, code, category) in enumerate(coded):
        its_site = code if category is _STRUCTURE and code is not _TISSUE else site
        lines += ["[[segments]]", f"label = {quoted(label)}", f"wording = {quoted(wording(label))}"]
        lines += [f"channel = {channel}", f"code = {_concept('SCT', *code)}"]
        lines += [f"category = {_concept('SCT', *category)}", f"site = {_concept('SCT', *its_site)}"]
        lines += [f"colour = {list(_PALETTE[place % len(_PALETTE)])}", "min_volume_ml = 0.1"]
        lines += [f"answers = {str(not abnormal or category is _MORPHOLOGY).lower()}", ""]
    return lines


def _code_of(label: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Type and category of what a channel is called."""
    words = re.split(r"[^a-z]+", label.lower())
    for word in words:
        if word in _ABNORMAL:
            return _ABNORMAL[word], _MORPHOLOGY
    organs = [_ORGANS[word] for word in words if word in _ORGANS]
    return (organs[0], _STRUCTURE) if len(organs) == 1 else (_TISSUE, _STRUCTURE)


def _concept(scheme: str, value: str, meaning: str) -> str:
    return f"{{ scheme = {quoted(scheme)}, value = {quoted(value)}, meaning = {quoted(meaning)} }}"


def _config(bundle: Path) -> dict[str, Any]:
    try:
        config = json.loads((bundle / "configs/inference.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"configs/inference.json of {bundle.name} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise BundleError(f"configs/inference.json of {bundle.name} is no JSON object.")
    return config


def _transforms(config: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The transforms of a list, by their names without their package. Raises BundleError where there is no list."""
    listed = config.get(key)
    found = listed.get("transforms") if isinstance(listed, Mapping) else listed
    if not isinstance(found, list) or not all(isinstance(one, Mapping) and "_target_" in one for one in found):
        raise BundleError(
            f"configs/inference.json: {key} is no plain list of transforms; add the bundle with a contract.toml of "
            "your own."
        )
    return [(str(one["_target_"]).rpartition(".")[2], one) for one in found if one.get("_disabled_") is not True]


def _value(config: Mapping[str, Any], values: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A transform's argument, `@key` replaced. Raises BundleError for an expression."""
    value = values.get(name, default)
    if isinstance(value, str) and value.startswith("@"):
        value = config.get(value[1:])
    if isinstance(value, str) and value.startswith(("$", "@")):
        raise BundleError(
            f"configs/inference.json: {name} of {values.get('_target_')} is {value!r}; a plain value is allowed, or a "
            "contract.toml of your own."
        )
    return value


def _number(config: Mapping[str, Any], values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = _value(config, values, name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BundleError(f"configs/inference.json: {name} of {values.get('_target_')} is {value!r}; no number.")
    return float(value)


def _preprocess(config: Mapping[str, Any], dimensions: int) -> list[str]:
    orientation, spacing = "stored", [0.0, 0.0, 0.0]
    intensity = ['intensity = "none"']
    scaled = False
    for name, values in _transforms(config, "preprocessing"):
        if name in _WITHOUT_EFFECT:
            continue
        if scaled:
            raise BundleError(
                f"configs/inference.json: {name} comes after the intensities were scaled, which Wetread does last; add "
                "the bundle with a contract.toml of your own."
            )
        if name == "Orientationd":
            orientation = str(_value(config, values, "axcodes"))
        elif name == "Spacingd":
            given = _value(config, values, "pixdim")
            sides = list(given) if isinstance(given, list) else [given] * dimensions
            if not all(isinstance(side, (int, float)) for side in sides) or not 1 <= len(sides) <= 3:
                raise BundleError(f"configs/inference.json: pixdim of Spacingd is {given!r}; numbers are allowed.")
            spacing = [max(0.0, float(side)) for side in (*sides, 0.0, 0.0)][:3]
        elif name in _INTENSITIES:
            intensity, scaled = _intensity(config, name, values), True
        else:
            raise BundleError(
                f"configs/inference.json: preprocessing has {name}, which Wetread does not repeat; add the bundle with "
                "a contract.toml of your own."
            )
    return [f"dimensions = {dimensions}", f"orientation = {quoted(orientation)}", f"spacing = {spacing}", *intensity]


def _intensity(config: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> list[str]:
    if name == "NormalizeIntensityd":
        if any(values.get(key) not in (None, False) for key in ("subtrahend", "divisor")):
            raise BundleError("configs/inference.json: NormalizeIntensityd with numbers of its own is not repeated.")
        return ['intensity = "standard"', f"nonzero = {str(bool(_value(config, values, 'nonzero', False))).lower()}"]
    if name == "ScaleIntensityd":
        if values.get("factor") is not None:
            raise BundleError("configs/inference.json: ScaleIntensityd with a factor is not repeated.")
        low, high, kind, clip = 0.0, 100.0, "percentile", False
        output = [_number(config, values, "minv", 0.0), _number(config, values, "maxv", 1.0)]
    else:
        kind = "range" if name == "ScaleIntensityRanged" else "percentile"
        first, last = ("a_min", "a_max") if kind == "range" else ("lower", "upper")
        low, high = _number(config, values, first), _number(config, values, last)
        output = [_number(config, values, "b_min", 0.0), _number(config, values, "b_max", 1.0)]
        clip = bool(_value(config, values, "clip", False))
    return [
        f'intensity = "{kind}"',
        f"low = {low}",
        f"high = {high}",
        f"output = {output}",
        f"clip = {str(clip).lower()}",
    ]


def _window(config: Mapping[str, Any], form: VolumeFormat) -> tuple[list[str], int]:
    """The windows, and how many at a time."""
    inferer = config.get("inferer")
    sliding = isinstance(inferer, Mapping) and str(inferer.get("_target_", "")).endswith("SlidingWindowInferer")
    values: Mapping[str, Any] = inferer if sliding and isinstance(inferer, Mapping) else {}
    size = _value(config, values, "roi_size", list(form.size) if form.size else None)
    if not isinstance(size, list) or len(size) != form.dimensions or not all(isinstance(one, int) for one in size):
        raise BundleError(
            f"configs/inference.json: the inferer's roi_size is {size!r}; {form.dimensions} whole numbers are allowed, "
            "there or as the input's spatial_shape in metadata.json."
        )
    overlap = _number(config, values, "overlap", 0.25)
    blend = "gaussian" if str(_value(config, values, "mode", "constant")).lower() == "gaussian" else "constant"
    batch_size = min(4, max(1, int(_number(config, values, "sw_batch_size", 1))))
    return ["[window]", f"size = {size}", f"overlap = {overlap}", f'blend = "{blend}"'], batch_size


def _activation(config: Mapping[str, Any], form: VolumeFormat) -> tuple[str, float]:
    """How logits become answers, and the threshold, by the bundle's postprocessing, else by its channels' names."""
    found, threshold = "", 0.5
    for name, values in _transforms(config, "postprocessing") if "postprocessing" in config else ():
        if name == "Activationsd":
            found = next((one for one in ("softmax", "sigmoid") if values.get(one) is True), found)
        elif name == "AsDiscreted" and values.get("threshold") is not None:
            threshold = _number(config, values, "threshold")
        elif name == "AsDiscreted" and values.get("argmax") is True:
            found = found or "softmax"
    background = len(form.labels) > 1 and bool(_BACKGROUND.match(form.labels[0]))
    return found or ("softmax" if background else "sigmoid"), threshold
