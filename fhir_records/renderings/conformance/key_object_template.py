"""TID 2010, the Key Object Selection, as rows (PS3.16 annex A)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from fhir_records.renderings.conformance.content_tree import Row, Template, concept_of
from fhir_records.renderings.conformance.report_template import (
    CODE,
    CONTAINS,
    IMAGE,
    LANGUAGE,
    MODIFIER,
    OBSERVERS,
    TEXT,
    dcm,
)

# CID 7010: of interest, and the rejection notes of Imaging Object Change Management (PS3.16, CID 7011 for the reasons).
REJECTIONS: Final = dcm("113001", "113037", "113038", "113039")
TITLES: Final = REJECTIONS | dcm("113000", "113013", "113018", "113030", "113035", "113036")

TID_2010: Final = Template(
    identifier="2010",
    titles=TITLES,
    rows=(
        Row("TID 2010, Document Title Modifier", MODIFIER, CODE, dcm("113011"), most=None),
        # Language and observers may be left out here.
        *(replace(row, least=0) for row in (*LANGUAGE, *OBSERVERS)),
        Row("TID 2010, Key Object Description", CONTAINS, TEXT, dcm("113012")),
        Row("TID 2010, key object", CONTAINS, IMAGE | {"COMPOSITE", "WAVEFORM"}, least=1, most=None),
    ),
)


def takes_back(ds: Dataset) -> bool:
    """Whether the object is a rejection note: no model makes it, but what a person decided."""
    return ds.get("SOPClassUID") == KeyObjectSelectionDocumentStorage and concept_of(ds) in REJECTIONS
