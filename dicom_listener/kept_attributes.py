"""What of an image's header may leave when nobody is to be told: a list of attributes, and of the values in them.

The Basic Application Level Confidentiality Profile (PS3.15 Annex E) says what must go. A header has thousands of other
places in which somebody can have typed a name, private ones among them; so only what stands here stays: numbers that
the physics of the image gave, and words of fixed vocabularies. A value that is no number, or no such word, goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_listener.lookup import frame_attributes

# Numbers (DS, IS, FD, US): of the acquisition, the detector and the grey values.
NUMBERS = (
    "SliceThickness", "KVP", "RepetitionTime", "EchoTime", "InversionTime", "NumberOfAverages", "ImagingFrequency",
    "EchoNumbers", "MagneticFieldStrength", "SpacingBetweenSlices", "NumberOfPhaseEncodingSteps", "EchoTrainLength",
    "PercentSampling", "PercentPhaseFieldOfView", "PixelBandwidth", "FlipAngle", "ReconstructionDiameter",
    "GantryDetectorTilt", "ExposureTime", "XRayTubeCurrent", "Exposure", "ImagerPixelSpacing", "PixelSpacing",
    "PixelAspectRatio", "ImageOrientationPatient", "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope",
    "PixelPaddingValue", "LossyImageCompressionRatio",
)  # fmt: skip
# Whole numbers among them.
_INTEGERS = frozenset(
    ("EchoNumbers", "NumberOfPhaseEncodingSteps", "EchoTrainLength", "ExposureTime", "XRayTubeCurrent", "Exposure",
     "PixelAspectRatio", "PixelPaddingValue")
)  # fmt: skip


def _terms(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Defined terms and enumerated values (PS3.3 sections C.7.3.1, C.8); ImageType's are those that say how it was made.
WORDS: Mapping[str, frozenset[str]] = {
    "BodyPartExamined": _terms(
        "ABDOMEN ANKLE ARM BRAIN BREAST CHEST CLAVICLE CSPINE ELBOW EXTREMITY FACE FEMUR FINGER FOOT FOREARM HAND HEAD"
        " HEART HIP HUMERUS KNEE LEG LIVER LSPINE LUNG NECK ORBIT PELVIS PITUITARY SELLA SHOULDER SINUS SKULL SPINE"
        " THORAX THYROID TSPINE UTERUS WRIST"
    ),
    "ImageLaterality": _terms("R L B U"),
    "Laterality": _terms("R L"),
    "LossyImageCompression": _terms("00 01"),
    "MRAcquisitionType": _terms("2D 3D"),
    "PatientPosition": _terms("HFP HFS HFDR HFDL FFP FFS FFDR FFDL LFP LFS RFP RFS"),
    "PixelIntensityRelationship": _terms("LIN LOG"),
    "PresentationIntentType": frozenset(("FOR PRESENTATION", "FOR PROCESSING")),
    "PresentationLUTShape": _terms("IDENTITY INVERSE"),
    "RescaleType": _terms("HU US OD"),
    "ScanningSequence": _terms("SE IR GR EP RM"),
    "SequenceVariant": _terms("SK MTC SS TRSS SP MP OSP NONE"),
    "VOILUTFunction": _terms("LINEAR LINEAR_EXACT SIGMOID"),
    "ViewPosition": _terms("AP PA LL RL RLD LLD RLO LLO CC MLO ML LM"),
}
_IMAGE_TYPE = _terms("ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MPR")
_VENDORS = (
    "Agfa", "Canon", "Carestream", "Esaote", "Fujifilm", "GE", "Hitachi", "Hologic", "Kodak", "Konica Minolta",
    "Philips", "Samsung", "Shimadzu", "Siemens", "Toshiba", "United Imaging",
)  # fmt: skip
OTHER_VENDOR = "other"


def kept(header: Dataset, frame: int) -> Dataset:
    """What stays of an image's header, of the one frame (from 1), its functional groups (PS3.3 C.7.6.16) flattened."""
    ds = Dataset()
    sources = list(_sources(header, frame))
    for keyword in NUMBERS:
        values = _numbers(_first(sources, keyword), whole=keyword in _INTEGERS)
        if values:
            setattr(ds, keyword, values if len(values) > 1 else values[0])
    for keyword, allowed in WORDS.items():
        words = [word for word in _texts(_first(sources, keyword)) if word in allowed]
        if words:
            setattr(ds, keyword, words if len(words) > 1 else words[0])
    image_type = [word for word in _texts(header.get("ImageType")) if word in _IMAGE_TYPE]
    pixels, examination = (image_type[:1] or ["DERIVED"])[0], (image_type[1:2] or ["PRIMARY"])[0]
    ds.ImageType = [pixels, examination, *image_type[2:3]]
    ds.Manufacturer = vendor(str(header.get("Manufacturer") or ""))
    for keyword, element in ((element.keyword, element) for element in frame_attributes(header, frame)):
        # What turns stored values into grey ones, of this frame.
        values = _numbers(element.value) if keyword.startswith(("Rescale", "Window")) else []
        if values:
            setattr(ds, keyword, values if len(values) > 1 else values[0])
    return ds


def vendor(manufacturer: str) -> str:
    """The scanner's make, of those that are known by name; else `other`."""
    plain = manufacturer.casefold()
    return next((name for name in _VENDORS if plain.startswith(name.casefold())), OTHER_VENDOR)


def vocabulary() -> frozenset[str]:
    """Every word that can stand in what `kept` returns, in lower case."""
    listed = {word for words in WORDS.values() for word in words}
    return frozenset(word.casefold() for word in {*listed, *_IMAGE_TYPE, *_VENDORS, OTHER_VENDOR})


def _sources(header: Dataset, frame: int) -> Iterator[Dataset]:
    """Where an attribute of the frame may stand: the frame's groups before the shared ones before the object's."""
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or [])[frame - 1 : frame]
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])[:1]
    for group in (*per_frame, *shared):
        for macro in group:
            if macro.VR == "SQ":
                yield from list(macro.value)[:1]
    yield header


def _first(sources: Iterable[Dataset], keyword: str) -> Any:
    for source in sources:
        value = source.get(keyword)
        if value not in (None, ""):
            return value
    return None


def _numbers(value: Any, *, whole: bool = False) -> list[Any]:
    """The value's numbers; none where one of them is none, or is beyond what DS can say."""
    found: list[Any] = []
    for one in _several(value):
        try:
            number = float(one)
        except (TypeError, ValueError):
            return []
        if not math.isfinite(number):
            return []
        found.append(int(number) if whole else format_number_as_ds(number))
    return found


def _texts(value: Any) -> list[str]:
    return [str(one).strip().upper() for one in _several(value)]


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return [value]
    return list(value)
