"""Whether an image's pixels are as many as its header says (PS3.3 sections C.7.6.3, C.7.6.16, C.7.6.24)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage, SegmentationStorage

_NEEDED: Final = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_EVERY_FRAME: Final = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "FrameContentSequence",
)

# Functional groups that every frame must have, shared or its own (PS3.3 tables A.75-2 and A.51-2).
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        ParametricMapStorage: (
            *_EVERY_FRAME,
            "DerivationImageSequence",
            "FrameVOILUTSequence",
            "ParametricMapFrameTypeSequence",
            "PixelValueTransformationSequence",
            "RealWorldValueMappingSequence",
        ),
        SegmentationStorage: (*_EVERY_FRAME, "DerivationImageSequence", "SegmentIdentificationSequence"),
    }
)

_IMAGE_TYPE_VALUES: Final[Mapping[str, int]] = MappingProxyType(
    {ParametricMapStorage: 4, SegmentationStorage: 2}  # C.8.32.2, C.8.20.2
)


def pixel_faults(ds: Dataset) -> Iterator[str]:
    """What does not fit; nothing for an object without pixels."""
    pixels = next((keyword for keyword in ("PixelData", "FloatPixelData") if keyword in ds), None)
    if pixels is None or any(ds.get(keyword) is None for keyword in _NEEDED):
        return  # what is missing is told by the IOD's table
    frames = int(ds.get("NumberOfFrames") or 1)
    bits = frames * int(ds.Rows) * int(ds.Columns) * int(ds.SamplesPerPixel) * int(ds.BitsAllocated)
    expected = (bits + 7) // 8
    if len(ds[pixels].value) != expected + expected % 2:
        yield f"{pixels} has not the length that rows, columns, frames and bits ask for."
    if pixels == "PixelData" and ds.get("HighBit") != (ds.get("BitsStored") or 0) - 1:
        yield "HighBit is not one less than BitsStored."
    values = _IMAGE_TYPE_VALUES.get(str(ds.get("SOPClassUID")))
    if values is not None and ds.get("ImageType") is not None and len(ds.ImageType) != values:
        yield f"ImageType has not {values} values."
    yield from _segment_faults(ds)
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is not None and len(groups) != frames:
        yield "PerFrameFunctionalGroupsSequence has not an item for each of the NumberOfFrames."
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for keyword in _GROUPS.get(str(ds.get("SOPClassUID")), ()):
        for number, group in enumerate(groups or (), start=1):
            if (keyword in shared) == (keyword in group):
                yield f"{keyword} of frame {number} must stand once, shared or for the frame."
    dimensions = len(ds.get("DimensionIndexSequence") or ())
    for number, group in enumerate(groups or (), start=1):
        content = group.get("FrameContentSequence") or [Dataset()]
        indices = content[0].get("DimensionIndexValues")
        count = 1 if isinstance(indices, int) else len(indices or ())
        if count != dimensions:
            yield f"Frame {number} has not an index for each item of DimensionIndexSequence."


def _segment_faults(ds: Dataset) -> Iterator[str]:
    """PS3.3 section C.8.20.2: segments are numbered from 1 on, and each frame is of one of them."""
    numbers = [segment.get("SegmentNumber") for segment in ds.get("SegmentSequence") or ()]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "SegmentNumber does not count the items of SegmentSequence from 1 on."
    if not numbers:
        return
    for number, group in enumerate(ds.get("PerFrameFunctionalGroupsSequence") or (), start=1):
        for item in group.get("SegmentIdentificationSequence") or ():
            if item.get("ReferencedSegmentNumber") not in numbers:
                yield f"Frame {number} is of a segment that SegmentSequence does not have."
