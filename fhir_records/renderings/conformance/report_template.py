"""TID 1500 with the templates that it includes, as rows: those of our documents, and those a person's signature adds.

PS3.16 annex A. Rows that Wetread never writes are left out, so that what stands where none of these fits is a fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fhir_records.renderings.conformance.content_tree import CodePair, Row, Template

CONTAINS, MODIFIER, CONTEXT, ACQUISITION = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT"


def dcm(*values: str) -> frozenset[CodePair]:
    """Codes of DICOM's own scheme."""
    return frozenset(("DCM", value) for value in values)


def sct(*values: str) -> frozenset[CodePair]:
    """Codes of SNOMED CT."""
    return frozenset(("SCT", value) for value in values)


def _types(*words: str) -> frozenset[str]:
    return frozenset(words)


TEXT, CODE, NUM, IMAGE, UIDREF = (_types(word) for word in ("TEXT", "CODE", "NUM", "IMAGE", "UIDREF"))
CONTAINER, PNAME = _types("CONTAINER"), _types("PNAME")

LANGUAGE: Final = (
    Row(
        "TID 1204, Language of Content Item",
        MODIFIER,
        CODE,
        dcm("121049"),
        least=1,
        children=(Row("TID 1204, Country of Language", MODIFIER, CODE, dcm("121046")),),
    ),
)

# TID 1001 to 1004; who observed is a device, a person, or both.
OBSERVERS: Final = (
    Row("TID 1002, Observer Type", CONTEXT, CODE, dcm("121005"), least=1, most=2, values=dcm("121006", "121007")),
    Row("TID 1003, Person Observer Name", CONTEXT, PNAME, dcm("121008")),
    Row("TID 1003, Person Observer's Organization Name", CONTEXT, TEXT, dcm("121009")),
    Row("TID 1003, Person Observer's Role", CONTEXT, CODE, dcm("121010", "121011"), most=2),
    Row("TID 1003, Person Observer's identifier", CONTEXT, TEXT, dcm("128774", "128775"), most=2),
    Row("TID 1004, Device Observer UID", CONTEXT, UIDREF, dcm("121012")),
    Row("TID 1004, Device Observer Name", CONTEXT, TEXT, dcm("121013")),
    Row("TID 1004, Device Observer Manufacturer", CONTEXT, TEXT, dcm("121014")),
    Row("TID 1004, Device Observer Model Name", CONTEXT, TEXT, dcm("121015")),
    Row("TID 1004, Device Observer Serial Number", CONTEXT, TEXT, dcm("121016")),
    Row("TID 1004, Device Observer Physical Location", CONTEXT, TEXT, dcm("121017")),
)

# TID 1600 to 1604. A descriptor may stand at the group or at the image that it is of.
_DESCRIPTORS: Final = (
    Row("TID 1602, Modality", ACQUISITION, CODE, dcm("121139")),
    Row("TID 1602, Frame of Reference UID", ACQUISITION, UIDREF, dcm("112227")),
    Row("TID 1602, Pixel Data Rows", ACQUISITION, NUM, dcm("110910"), units=frozenset({("UCUM", "{pixels}")})),
    Row("TID 1602, Pixel Data Columns", ACQUISITION, NUM, dcm("110911"), units=frozenset({("UCUM", "{pixels}")})),
    Row(
        "TID 1604, pixel spacing", ACQUISITION, NUM, dcm("111026", "111066"), most=2, units=frozenset({("UCUM", "mm")})
    ),
)
IMAGE_LIBRARY: Final = Row(
    "TID 1600, Image Library",
    CONTAINS,
    CONTAINER,
    dcm("111028"),
    children=(
        Row(
            "TID 1600, Image Library Group",
            CONTAINS,
            CONTAINER,
            dcm("126200"),
            least=1,
            most=None,
            children=(
                *_DESCRIPTORS,
                Row("TID 1601, Image Library Entry", CONTAINS, IMAGE, least=1, most=None, children=_DESCRIPTORS),
            ),
        ),
    ),
)

# TID 4019. Its rows are modifiers of the group, or of one measurement.
ALGORITHM: Final = (
    Row("TID 4019, Algorithm Name", MODIFIER, TEXT, dcm("111001")),
    Row("TID 4019, Algorithm Version", MODIFIER, TEXT, dcm("111003")),
    Row("TID 4019, Algorithm Parameters", MODIFIER, TEXT, dcm("111002"), most=None),
    Row("TID 4019, Algorithm Manufacturer", MODIFIER, TEXT, dcm("122405")),
    Row("TID 4019, Algorithm Family", MODIFIER, CODE, dcm("111000")),
)

_SITE_PARTS: Final = (
    Row("TID 1501, Laterality", MODIFIER, CODE, sct("272741003")),
    Row("TID 1501, Topographical Modifier", MODIFIER, CODE, sct("106233006")),
)
# TID 300.
_MEASUREMENT: Final = (
    Row("TID 300, modifier of a measurement", MODIFIER, CODE | TEXT, most=None),
    Row("TID 300, property of a measurement", "HAS PROPERTIES", CODE | TEXT | NUM, most=None),
    Row("TID 300, source of a measurement", "INFERRED FROM", IMAGE | NUM, most=None),
)
# TID 1410: the one image, or frame, that a region was marked on.
_REGION_OF: Final = (Row("TID 1410, image of a region", "SELECTED FROM", IMAGE, least=1),)
_PERSON_IN_GROUP: Final = tuple(row for row in OBSERVERS if "1003" in row.name)

# TID 1501; TID 1410 where a person marked a region, TID 1411 where the group measures a segmented volume.
GROUP: Final = Row(
    "TID 1501, Measurement Group",
    CONTAINS,
    CONTAINER,
    dcm("125007"),
    least=1,
    most=None,
    children=(
        Row("TID 4108, Tracking Identifier", CONTEXT, TEXT, dcm("112039"), least=1),
        Row("TID 4108, Tracking Unique Identifier", CONTEXT, UIDREF, dcm("112040"), least=1),
        Row("TID 1501, Observer Type", CONTEXT, CODE, dcm("121005"), values=dcm("121006", "121007")),
        *_PERSON_IN_GROUP,
        Row("TID 1501, Finding", CONTAINS, CODE, dcm("121071"), least=1),
        Row("TID 1501, Finding Category", CONTAINS, CODE, sct("276214006")),
        Row("TID 1501, Finding Site", MODIFIER, CODE, sct("363698007"), most=None, children=_SITE_PARTS),
        Row("TID 1501, Measurement Method", MODIFIER, CODE, sct("370129005")),
        *ALGORITHM,
        Row("TID 1411, Referenced Segment", CONTAINS, IMAGE, dcm("121191")),
        Row("TID 1411, Source image for segmentation", CONTAINS, IMAGE, dcm("121233"), most=None),
        Row("TID 1411, Source series for segmentation", CONTAINS, UIDREF, dcm("121232")),
        Row("TID 1501, Source of Measurement", CONTAINS, IMAGE, dcm("121112"), most=None),
        Row("TID 300, Measurement", CONTAINS, NUM, most=None, children=_MEASUREMENT),
        Row("TID 1501, Qualitative Evaluation", CONTAINS, CODE, most=None, children=_SITE_PARTS),
        Row("TID 1501, Qualitative Evaluation in words", CONTAINS, TEXT, most=None),
        Row("TID 1410, Image Region", CONTAINS, _types("SCOORD"), dcm("111030"), children=_REGION_OF),
    ),
)

IMAGING_MEASUREMENTS: Final = Row(
    "TID 1500, Imaging Measurements", CONTAINS, CONTAINER, dcm("126010"), children=(GROUP,)
)


def _names(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset(row.name for row in rows)


TID_1500: Final = Template(
    identifier="1500",
    titles=dcm("126000"),
    rows=(
        *LANGUAGE,
        *OBSERVERS,
        Row("TID 1500, Procedure Reported", MODIFIER, CODE, dcm("121058"), least=1, most=None),
        IMAGE_LIBRARY,
        IMAGING_MEASUREMENTS,
    ),
    some_of=(_names([IMAGING_MEASUREMENTS]),),
)
