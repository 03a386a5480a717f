"""A compressed image made uncompressed for a node that takes nothing else. What was lost stays lost.

The SOP Instance UID stays: the pixels are those that the object has (PS3.3 section C.7.6.1.1.5 asks for another UID
only where an image is compressed with loss).
"""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener.pixels import Decoder, NativeFrame, number_of_frames
from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import PixelsNotReadable

UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))  # the better one first

# An object is held whole while it is made, and a peer that takes nothing compressed is rarely one for more.
MAX_OBJECT_BYTES = 1024**3

# Compression with loss (PS3.5 section A.4, PS3.3 section C.7.6.1.1.5.1).
_LOSSY = {f"1.2.840.10008.1.2{end}" for end in (".4.50", ".4.51", ".4.53", ".4.55", ".4.81", ".4.91", ".4.203")}
# Colour that decoding turns into RGB exactly. From YBR_FULL the way is rounded: only where loss is there already.
_EXACT = {"RGB", "YBR_RCT", "PALETTE COLOR", "MONOCHROME1", "MONOCHROME2"}


def can_be_uncompressed(transfer_syntax_uid: str) -> bool:
    """Whether pixels in this transfer syntax are compressed, and can be decoded."""
    syntax = transfer_syntax(transfer_syntax_uid)
    return syntax.is_encapsulated and syntax.is_decoded


def uncompressed(path: Path, transfer_syntax_uid: str, decoder: Decoder) -> Dataset:
    """The object at ``path`` with its pixels native, ready to be sent in ``transfer_syntax_uid``.

    Args:
        path: a DICOM file with compressed pixels.
        transfer_syntax_uid: Explicit or Implicit VR Little Endian.
        decoder: what decodes the frames, within limits.

    Raises:
        PixelsNotReadable: a frame cannot be decoded, the object would be too large, or its values would change.
    """
    try:
        ds = dcmread(path)
        for _ in ds:  # a value is decoded when it is asked for, and asked for all over
            pass
    except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
        raise PixelsNotReadable("The file is not a readable DICOM file.") from error
    source = str(ds.file_meta.get("TransferSyntaxUID") or "")
    if not can_be_uncompressed(source):
        raise PixelsNotReadable("The object has no compressed pixels that can be decoded.")
    frames = number_of_frames(ds)
    _check(ds, source, frames)
    pixels = bytearray()
    native: NativeFrame | None = None
    for number in range(1, frames + 1):
        native = decoder.native_frame(path, number)
        if native.bits_allocated != ds.BitsAllocated:
            raise PixelsNotReadable("Decoded, the values would have another number of bits than the object says.")
        values = native.pixels
        pixels += values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    if native is not None:
        _describe(ds, native, source)
    ds.PixelData = bytes(pixels) + b"\0" * (len(pixels) % 2)
    # PS3.5 section A.1 and A.2: OW in implicit VR; in explicit VR OB only where values are bytes.
    is_words = transfer_syntax_uid == ImplicitVRLittleEndian or ds.BitsAllocated > 8
    ds["PixelData"].VR = "OW" if is_words else "OB"
    ds["PixelData"].is_undefined_length = False
    return encoded_anew(ds, transfer_syntax_uid)


def encoded_anew(ds: Dataset, transfer_syntax_uid: str) -> Dataset:
    """``ds``, read from a file, made ready to be sent in another uncompressed little endian transfer syntax.

    Raises:
        PixelsNotReadable: an element cannot be read, so it cannot be written either.
    """
    # Parsed to the last item first: a sequence that nobody has looked at yet would be written with the bytes it was
    # read from, and those are in the old encoding.
    try:
        for _ in ds.iterall():
            pass
    except Exception as error:  # boundary: pydicom decodes values only now, and raises whatever a broken one brings
        raise PixelsNotReadable("An element of it cannot be read, nor written in another encoding.") from error
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    # pynetdicom compares this with the transfer syntax, and would think the file's own encoding a mistake.
    ds.set_original_encoding(transfer_syntax_uid == ImplicitVRLittleEndian, True, ds.original_character_set)
    return ds


def _check(ds: Dataset, source: str, frames: int) -> None:
    try:
        size = int(ds.Rows) * int(ds.Columns) * int(ds.SamplesPerPixel) * int(ds.BitsAllocated) // 8 * frames
    except (AttributeError, TypeError, ValueError) as error:
        raise PixelsNotReadable("The object does not say how large its image is.") from error
    if size > MAX_OBJECT_BYTES:
        raise PixelsNotReadable(f"Uncompressed, the object would be larger than {MAX_OBJECT_BYTES} bytes.")
    if source not in _LOSSY and str(ds.get("PhotometricInterpretation")) not in _EXACT:
        raise PixelsNotReadable("Its colours cannot be made uncompressed without rounding them.")


def _describe(ds: Dataset, native: NativeFrame, source: str) -> None:
    """Let the attributes of the Image Pixel module say what the pixels are now (PS3.3 section C.7.6.3)."""
    ds.PhotometricInterpretation = native.photometric_interpretation
    ds.SamplesPerPixel = native.samples_per_pixel
    if native.samples_per_pixel > 1:
        ds.PlanarConfiguration = native.planar_configuration
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"):
        if keyword in ds:
            del ds[keyword]
    if source in _LOSSY and "LossyImageCompression" not in ds:
        ds.LossyImageCompression = "01"  # the transfer syntax says so no longer
