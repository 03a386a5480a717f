"""Text in the pixels: what a header says of it. What a picture shows, `inference.burnt_in` finds."""

from __future__ import annotations

from pydicom.dataset import Dataset

_SCREEN_TERMS = ("SCREEN SAVE", "SCREENSHOT", "SCREEN", "CSA REPORT", "DOSE REPORT", "PROTOCOL", "SUMMARY")


def why_not(header: Dataset) -> str | None:
    """Why the header says that the pixels may name somebody, in words; None where it says nothing of the kind."""
    if str(header.get("BurnedInAnnotation") or "").upper() == "YES":
        return "Its header says that text is burnt in (Burned In Annotation)."
    if str(header.get("RecognizableVisualFeatures") or "").upper() == "YES":
        return "Its header says that the person can be recognised (Recognizable Visual Features)."
    if header.get("ConversionType"):
        return "It was made by a converter or from a screen (Conversion Type)."
    image_type = header.get("ImageType") or ()
    terms = [str(term).upper() for term in ([image_type] if isinstance(image_type, str) else image_type)]
    if any(term.startswith(_SCREEN_TERMS) for term in terms):
        return "It is a picture of a screen or a report (Image Type)."
    return None
