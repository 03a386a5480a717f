"""The kinds of DICOM object that a result is written as, by the words that settings and records have for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

SR: Final = "dicom_sr"
SECONDARY_CAPTURE: Final = "secondary_capture"
PARAMETRIC_MAP: Final = "parametric_map"
KEY_OBJECTS: Final = "key_objects"
ENCAPSULATED_PDF: Final = "encapsulated_pdf"
SEGMENTATION: Final = "segmentation"

# The words of `[[destination]] objects`, in the order in which a study's objects are written.
KIND_OF_WORD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sr": SR,
        "sc": SECONDARY_CAPTURE,
        "map": PARAMETRIC_MAP,
        "ko": KEY_OBJECTS,
        "pdf": ENCAPSULATED_PDF,
        "seg": SEGMENTATION,
    }
)

# The words of `[[destination]] sr_classes`, the first choice first: SOP classes that a structured report is written in.
SR_CLASS_OF_WORD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "comprehensive_3d": str(Comprehensive3DSRStorage),
        "comprehensive": str(ComprehensiveSRStorage),
        "enhanced": str(EnhancedSRStorage),
    }
)
SR_CLASSES: Final = tuple(SR_CLASS_OF_WORD.values())
# What people call them, by SOP Class UID.
SR_CLASS_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        str(Comprehensive3DSRStorage): "Comprehensive 3D SR",
        str(ComprehensiveSRStorage): "Comprehensive SR",
        str(EnhancedSRStorage): "Enhanced SR",
    }
)

# Series numbers of the first revision's objects, far above what scanners number, so that ours stand last in a list.
FIRST_SERIES_NUMBER: Final[Mapping[str, int]] = MappingProxyType(
    {
        SR: 9001,
        SECONDARY_CAPTURE: 9101,
        KEY_OBJECTS: 9201,
        PARAMETRIC_MAP: 9301,
        SEGMENTATION: 9401,
        ENCAPSULATED_PDF: 9501,
    }
)
