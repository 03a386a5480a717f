"""Text in pixels: what headers say of it."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_listener.burnt_in import why_not


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BurnedInAnnotation", "YES"),
        ("RecognizableVisualFeatures", "YES"),
        ("ConversionType", "WSD"),
        ("ImageType", ["DERIVED", "SECONDARY", "SCREEN SAVE"]),
        ("ImageType", "SCREEN SAVE"),
    ],
)
def test_a_header_that_warns_is_believed(keyword: str, value: object) -> None:
    """Burnt-in text, a recognisable face, a converter or a screen: each is a reason in words."""
    ds = Dataset()
    ds.ImageType, ds.BurnedInAnnotation = ["ORIGINAL", "PRIMARY"], "NO"
    assert why_not(ds) is None
    setattr(ds, keyword, value)
    assert "(" in str(why_not(ds))
