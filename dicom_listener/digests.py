"""Hashes of a stored object: of its file, and of its pixels as they are encoded.

They take longer than everything else that the index does for an object, so they are made behind its row.
"""

from __future__ import annotations

from pathlib import Path

from dicom_listener.data_set import PIXEL_DATA, PIXEL_TAGS, encoding_of, inflated, sought
from dicom_listener.filed import Filed, opened
from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.store.digests import Digests


def digests_of(path: Path) -> Digests:
    """The hashes of a file of the spool.

    Raises:
        FileNotFoundError: it is gone.
        ObjectNotStorable: it is broken.
    """
    with opened(path) as file:
        return Digests(file.sha256(), _pixels_sha256(file))


def _pixels_sha256(file: Filed) -> str:
    """Of the encoded pixels, with a word for how they are encoded before it; "" where there are none.

    Equal words and hashes mean equal pixels; anything else has to be decoded to be compared.
    """
    syntax = file.received.transfer_syntax_uid
    encoding = encoding_of(syntax)
    plain = inflated(file.data_set, syntax)
    pixels = next(iter(sought(plain, encoding, PIXEL_TAGS)), None)
    if pixels is None:
        return ""
    digest = file.sha256_of_data(pixels.value, pixels.end, plain)
    if pixels.tag == PIXEL_DATA and pixels.undefined_length and not transfer_syntax(syntax).is_deflated:
        return f"{syntax}:{digest}"
    return f"{'little' if encoding.little_endian else 'big'}:{digest}"
