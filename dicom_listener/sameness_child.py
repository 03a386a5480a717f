"""The child process of `sameness`: parses two headers, or decodes two frames, and says whether they are the same.

``python -m dicom_listener.sameness_child MEGABYTES``, spoken to as `dicom_listener.bounded_child` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from dicom_listener.bounded_child import serve
from dicom_listener.data_set import PIXEL_TAGS
from dicom_listener.pixels import native_frame, number_of_frames, read_header
from fhir_records.errors import PixelsNotReadable

# What only says how the rest is encoded: character set, lengths, padding, offset tables, and how colour is laid out.
_ENCODING_TAGS = frozenset({0x00080005, 0x00280004, 0x00280006, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0xFFFCFFFC})


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], None]:
    """Whether the headers of `path` and `other` are the same, or their frames number `frame`, and whether more follow.

    Raises:
        PixelsNotReadable: it cannot be told.
    """
    path, other = request["path"], request["other"]
    if request["what"] == "headers":
        return {"same": _same_headers(path, other), "more": False}, None
    frame = int(request["frame"])
    frames = number_of_frames(read_header(path))
    if frame == 1 and frames != number_of_frames(read_header(other)):
        return {"same": False, "more": False}, None
    return {"same": _same_frame(path, other, frame), "more": frame < frames}, None


def _same_headers(path: str, other: str) -> bool:
    try:
        return _comparable(read_header(path)) == _comparable(read_header(other))
    except RecursionError as error:
        raise PixelsNotReadable("The header is nested too deeply.") from error


def _same_frame(path: str, other: str, frame: int) -> bool:
    one, two = native_frame(path, frame), native_frame(other, frame)
    if one.photometric_interpretation != two.photometric_interpretation:
        return False
    return bool(np.array_equal(one.pixels, two.pixels))


def _comparable(ds: Dataset) -> dict[int, Any]:
    """The values of a data set as text, without what only says how they are encoded."""
    return {
        int(element.tag): _value(element.value)
        for element in ds
        if element.tag.element != 0 and int(element.tag) not in _ENCODING_TAGS | PIXEL_TAGS
    }


def _value(value: Any) -> Any:
    if isinstance(value, Dataset):
        return _comparable(value)
    if isinstance(value, bytes):
        return value.rstrip(b"\0 ")
    if isinstance(value, MultiValue | Sequence | list | tuple):
        return [_value(item) for item in value]
    return "" if value is None else str(value)


if __name__ == "__main__":
    serve(answer)
