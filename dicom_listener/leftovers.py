"""Whether anything of a person is left in the bytes of what is to leave: the last look, at the bytes themselves.

It knows nothing of how they were made. What names a person is taken from the original's header: the values of all
attributes that the Basic Profile touches (PS3.15 Table E.1-1), of private ones and of all UIDs, at any depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_listener.kept_attributes import vocabulary

PROFILE_EDITION = "2026c"  # of PS3.15, whose Table E.1-1 is used
PROFILE_TABLE = f"dicomfields_{PROFILE_EDITION}"  # as the library calls it

_STANDARD_ROOT = "1.2.840.10008."
_SHORTEST = 4  # characters: shorter ones stand in any file by chance
_NUMBERS = re.compile(r"[0-9.+-]+")
_SHORTEST_NUMBER = 6
_VRS = frozenset(["AE", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT", "DA", "DT", "UN"])


def identifying_values(header: Dataset) -> frozenset[str]:
    """What in an original header could tell whose image it is, in lower case; and the parts of names."""
    found: set[str] = set()
    for element in _walked(header):
        if element.VR in _VRS and (element.VR == "UI" or element.tag.is_private or _in_table(element)):
            found.update(_values(element))
    return frozenset(value for value in found if _tells(value))


def leftovers(content: bytes, values: frozenset[str]) -> int:
    """How many of these values stand in the bytes, in whatever case, as UTF-8 or Latin-1.

    Args:
        content: bytes of a header or a text, without pixels.
        values: of `identifying_values`.
    """
    plain = content.lower()
    return sum(any(form in plain for form in _encoded(value)) for value in values)


def _encoded(value: str) -> set[bytes]:
    forms = (value, value.upper())  # `bytes.lower` knows ASCII letters only
    return {form.encode(code, "ignore").lower() for form in forms for code in ("utf-8", "latin-1")} - {b""}


def _values(element: DataElement) -> Iterator[str]:
    value = element.value
    several = [] if value is None else [value] if isinstance(value, str | bytes) or element.VM <= 1 else list(value)
    for one in several:
        text = one.decode("latin-1") if isinstance(one, bytes) else str(one)
        text = text.strip(" \0").casefold()
        yield text
        if element.VR == "PN":
            yield from re.split(r"[\^=\s]+", text)


def _tells(value: str) -> bool:
    if value.startswith(_STANDARD_ROOT) or value in vocabulary():
        return False
    return len(value) >= (_SHORTEST_NUMBER if _NUMBERS.fullmatch(value) else _SHORTEST)


def _walked(ds: Dataset) -> Iterator[DataElement]:
    for element in ds:
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _walked(item)
        else:
            yield element


def _in_table(element: DataElement) -> bool:
    group, number = element.tag.group, element.tag.element
    singles, repeating = _table()
    return (group, number) in singles or any(
        group & mask_group == first & mask_group and number & mask_number == second & mask_number
        for first, second, mask_group, mask_number in repeating
    )


@cache
def _table() -> tuple[frozenset[tuple[int, ...]], tuple[tuple[int, ...], ...]]:
    """The tags of Table E.1-1: single ones, and groups that repeat, with their masks."""
    tags = dicom_anonymization_database_selector(PROFILE_TABLE)["ALL_TAGS"]
    return frozenset(tag for tag in tags if len(tag) == 2), tuple(tag for tag in tags if len(tag) > 2)
