"""What routing reads from the files themselves: the header of the first image of each series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_listener.stored import open_stored
from fhir_records.errors import PixelsNotReadable
from fhir_records.identities import log_id
from fhir_records.jobs import PRIORITIES
from fhir_records.model import Instance, Priority
from workflow.facts import ORDER_PRIORITIES, SERIES_KEYWORDS, STUDY_KEYWORDS, Headers, by_series

log = structlog.get_logger(__name__)

ReadHeaders = Callable[[Sequence[Instance]], Headers]

_KEYWORDS = (*SERIES_KEYWORDS, *STUDY_KEYWORDS, "RequestAttributesSequence")
_MOST_SERIES = 200  # whose header is read: an archive may give every image a series of its own
_LONGEST = 1024  # characters of a value: no attribute that rules see may be longer (PS3.5 section 6.2)


def read_headers(path_of: Callable[[str], Path], instances: Sequence[Instance]) -> Headers:
    """The headers that rules may ask about. A file that cannot be read leaves its values empty."""
    study: dict[str, str] = {}
    series: dict[str, dict[str, Any]] = {}
    for images in by_series(instances)[:_MOST_SERIES]:
        first = images[0]
        try:
            ds, _ = open_stored(path_of(first.file_key), _KEYWORDS)
        except PixelsNotReadable:
            log.warning("header could not be read for routing", series=log_id(first.series_uid))
            continue
        series[first.series_uid] = {
            keyword: _texts(ds, keyword) if keyword == "ImageType" else _text(ds, keyword)
            for keyword in SERIES_KEYWORDS
        }
        for keyword in STUDY_KEYWORDS:
            told = _text(ds, keyword) or _requested(ds, keyword)
            if keyword == "RequestedProcedurePriority":
                told = most_urgent(study.get(keyword, ""), told.upper())
                study[keyword] = told
            else:
                study[keyword] = study.get(keyword) or told
    return Headers(study, series)


def most_urgent(one: str, other: str) -> str:
    """Of two Requested Procedure Priorities the more urgent: series of one study may be of several requests."""
    return max((one, other), key=lambda word: (PRIORITIES[ORDER_PRIORITIES.get(word, Priority.ROUTINE)], bool(word)))


def _requested(ds: Dataset, keyword: str) -> str:
    """The same attribute in the Request Attributes Sequence (PS3.3 table 10-9), where some modalities put it."""
    return next((found for item in _items(ds) if (found := _text(item, keyword))), "")


def _items(ds: Dataset) -> Sequence[Dataset]:
    try:
        return list(ds.get("RequestAttributesSequence") or [])
    except Exception:  # boundary: pydicom decodes a sequence only now, and raises whatever a broken one brings about
        return []


def _text(ds: Dataset, keyword: str) -> str:
    return "\\".join(_texts(ds, keyword))


def _texts(ds: Dataset, keyword: str) -> list[str]:
    try:
        value = ds.get(keyword)
    except Exception:  # boundary: pydicom decodes only now, and raises whatever a broken value brings about
        return []
    if value is None or value == "":
        return []
    several = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    # Bytes that are no text in the object's character set come out as surrogates, which nothing else takes.
    return [str(entry).encode("utf-8", "replace").decode().strip()[:_LONGEST] for entry in several]
