"""Enumerated Values, and those Defined Terms of which we use a few, by attribute (PS3.3, the clause beside each)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

# Modality that each kind of object has in Wetread; PS3.3 fixes those of SR, KO and SEG.
MODALITY: Final[Mapping[str, str]] = MappingProxyType(
    {
        Comprehensive3DSRStorage: "SR",  # C.17.1
        ComprehensiveSRStorage: "SR",
        EnhancedSRStorage: "SR",
        SecondaryCaptureImageStorage: "OT",
        ParametricMapStorage: "OT",
        KeyObjectSelectionDocumentStorage: "KO",  # C.17.6.1
        EncapsulatedPDFStorage: "DOC",
        SegmentationStorage: "SEG",  # C.8.20.1
    }
)

_YES_NO: Final = frozenset({"YES", "NO"})

ENUMERATED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "PatientSex": frozenset({"M", "F", "O"}),  # C.7.1.1
        "PatientIdentityRemoved": _YES_NO,  # C.7.1.1
        "Laterality": frozenset({"R", "L"}),  # C.7.3.1
        "BurnedInAnnotation": _YES_NO,  # C.7.6.1
        "RecognizableVisualFeatures": _YES_NO,  # C.7.6.1
        "LossyImageCompression": frozenset({"00", "01"}),  # C.7.6.1.1.5
        "PresentationLUTShape": frozenset({"IDENTITY"}),  # C.8.32.2
        "ConversionType": frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"}),  # C.8.6.1
        "PhotometricInterpretation": frozenset({"RGB", "MONOCHROME2"}),  # C.7.6.3.1.2, those that we write
        "PlanarConfiguration": frozenset({"0", "1"}),  # C.7.6.3.1.3
        "PixelRepresentation": frozenset({"0", "1"}),  # C.7.6.3
        "CompletionFlag": frozenset({"PARTIAL", "COMPLETE"}),  # C.17.2
        "VerificationFlag": frozenset({"UNVERIFIED", "VERIFIED"}),  # C.17.2
        "PreliminaryFlag": frozenset({"PRELIMINARY", "FINAL"}),  # C.17.2
        "ContinuityOfContent": frozenset({"SEPARATE", "CONTINUOUS"}),  # C.18.8
        "ValueType": frozenset(
            {
                "CONTAINER", "TEXT", "CODE", "NUM", "IMAGE", "UIDREF", "PNAME", "DATE", "TIME", "DATETIME",
                "COMPOSITE", "WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD", "TABLE",
            }
        ),  # C.17.3
        "ContentQualification": frozenset({"PRODUCT", "RESEARCH", "SERVICE"}),  # C.8.13.2.1
        "DimensionOrganizationType": frozenset({"3D", "3D_TEMPORAL", "TILED_FULL", "TILED_SPARSE"}),  # C.7.6.17
        "SpatialLocationsPreserved": frozenset({"YES", "NO", "REORIENTED_ONLY"}),  # C.7.6.16.2.6
        "SegmentationType": frozenset({"BINARY", "FRACTIONAL", "LABELMAP"}),  # C.8.20.2
        "SegmentAlgorithmType": frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"}),  # C.8.20.4
        "SegmentsOverlap": frozenset({"YES", "NO", "UNDEFINED"}),  # C.8.20.2
        "MIMETypeOfEncapsulatedDocument": frozenset({"application/pdf"}),  # C.24.2
    }
)  # fmt: skip
