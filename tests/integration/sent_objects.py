"""Objects as other makers make them, all made by code: every kind, every encoding, and what is wrong with them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid

from tests.peers import run_program
from tests.unit.dicom_listener.objects import as_file, image, with_transfer_syntax

ROOT = "1.2.840.10008.5.1.4.1.1."
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)
_IMAGE_KEYWORDS = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def gradient(rows: int = 64, columns: int = 96, top: int = 4000) -> np.ndarray:
    """Values from 0 to ``top`` with edges, no two rows alike."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    return np.rint(top * (0.5 * x + 0.3 * y + 0.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1))).astype("<u2")


def picture(bits: int = 12, **changed: Any) -> Dataset:
    """A grey image whose whole range is its window."""
    values = gradient(top=2**bits - 96)
    told: dict[str, Any] = {
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": 8 if bits == 8 else 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "WindowCenter": str(2 ** (bits - 1)),
        "WindowWidth": str(2**bits),
        "PixelData": values.astype("u1" if bits == 8 else "<u2").tobytes(),
    }
    return image(**(told | changed))


def colour(**changed: Any) -> Dataset:
    """A smooth colour image."""
    grey = gradient(top=255).astype(np.uint8)
    values = np.stack([grey, 255 - grey, np.full_like(grey, 90)], axis=-1)
    told: dict[str, Any] = {
        "Rows": grey.shape[0],
        "Columns": grey.shape[1],
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelData": values.tobytes(),
    }
    return image(**(told | changed))


def encoded_by_dcmtk(folder: Path, ds: Dataset, program: str, *options: str) -> bytes:
    """The file that one of DCMTK's encoders makes of ``ds``."""
    plain, out = folder / "plain.dcm", folder / "encoded.dcm"
    plain.write_bytes(as_file(ds))
    run = run_program(program, *options, str(plain), str(out))
    assert run.status == 0, run.output
    return out.read_bytes()


def video(transfer_syntax_uid: str) -> bytes:
    """A video endoscopic image; its stream is no film, for nobody here plays it."""
    ds = colour(
        SOPClassUID=UID(ROOT + "77.1.1.1"),
        Modality="ES",
        NumberOfFrames="25",
        PhotometricInterpretation="YBR_PARTIAL_420",
    )
    ds.PixelData = encapsulate([b"\x00\x00\x01\xb3" + bytes(500)])
    return with_transfer_syntax(as_file(ds, RLELossless), transfer_syntax_uid)


def without_image(sop_class: str, modality: str, **more: Any) -> Dataset:
    """An object of another kind than an image."""
    ds = image(SOPClassUID=UID(ROOT + sop_class), Modality=modality, **dict.fromkeys(_IMAGE_KEYWORDS))
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def pdf(content: bytes = PDF) -> Dataset:
    """An encapsulated PDF."""
    ds = without_image("104.1", "DOC", DocumentTitle="Letter", MIMETypeOfEncapsulatedDocument="application/pdf")
    ds.EncapsulatedDocument, ds.EncapsulatedDocumentLength = content + b"\0" * (len(content) % 2), len(content)
    return ds


def ecg() -> Dataset:
    """A 12-lead ECG of one channel."""
    channel = Dataset()
    channel.WaveformBitsStored = 16
    group = Dataset()
    group.WaveformOriginality, group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = "ORIGINAL", 1, 100
    group.SamplingFrequency, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = "500", 16, "SS"
    group.ChannelDefinitionSequence = Items([channel])
    group.add_new("WaveformData", "OW", bytes(200))
    return without_image("9.1.1", "ECG", WaveformSequence=Items([group]))


def basic_text_report(text: str = "Nothing of note.", **more: Any) -> Dataset:
    """A basic text SR of another maker."""
    title, heading = Dataset(), Dataset()
    for item, meaning, code in ((title, "Radiology Report", "11528-7"), (heading, "Finding", "121071")):
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "LN", meaning
    finding = Dataset()
    finding.RelationshipType, finding.ValueType, finding.TextValue = "CONTAINS", "TEXT", text
    finding.ConceptNameCodeSequence = Items([heading])
    return without_image(
        "88.11",
        "SR",
        ValueType="CONTAINER",
        ConceptNameCodeSequence=Items([title]),
        ContentSequence=Items([finding]),
        CompletionFlag="COMPLETE",
        VerificationFlag="UNVERIFIED",
        **more,
    )


def element(group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian, its value as it is."""
    size = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHL", group, number, vr, 0, size) + value
    return struct.pack("<HH2sH", group, number, vr, size) + value


def even(value: bytes, pad: bytes = b" ") -> bytes:
    """A value padded as the standard wants it."""
    return value + pad * (len(value) % 2)


def data_set(
    elements: Sequence[bytes] = (),
    *,
    sop_uid: str = "",
    sop_class: str = "4",
    name: bytes = b"Test^One",
    charset: bytes | None = None,
    patient_id: bytes = b"PAT1",
    description: bytes = b"",
) -> bytes:
    """An encoded data set of an image made byte by byte; ``elements`` replace those of the same tag."""
    uid = sop_uid or generate_uid()
    values = gradient(8, 8)
    made = [
        *([element(8, 5, b"CS", even(charset))] if charset is not None else []),
        element(8, 0x16, b"UI", even((ROOT + sop_class).encode(), b"\0")),
        element(8, 0x18, b"UI", even(uid.encode(), b"\0")),
        element(8, 0x60, b"CS", b"MR"),
        element(8, 0x1030, b"LO", even(description)),
        element(0x10, 0x10, b"PN", even(name)),
        element(0x10, 0x20, b"LO", even(patient_id)),
        element(0x20, 0xD, b"UI", even(generate_uid().encode(), b"\0")),
        element(0x20, 0xE, b"UI", even(generate_uid().encode(), b"\0")),
        element(0x28, 2, b"US", b"\1\0"),
        element(0x28, 4, b"CS", b"MONOCHROME2 "),
        element(0x28, 0x10, b"US", b"\x08\0"),
        element(0x28, 0x11, b"US", b"\x08\0"),
        element(0x28, 0x100, b"US", b"\x10\0"),
        element(0x28, 0x101, b"US", b"\x0c\0"),
        element(0x28, 0x102, b"US", b"\x0b\0"),
        element(0x28, 0x103, b"US", b"\0\0"),
        element(0x7FE0, 0x10, b"OW", values.tobytes()),
    ]
    by_tag = {_tag(one): one for one in [*made, *elements]}
    return b"".join(by_tag[tag] for tag in sorted(by_tag))


def _tag(encoded: bytes) -> int:
    group, number = struct.unpack_from("<HH", encoded)
    return int(group) << 16 | int(number)


def file_of(content: bytes, sop_uid: str = "1.2.3", sop_class: str = "4") -> bytes:
    """A data set of `data_set` as a file, its bytes as they are."""
    like = as_file(image(SOPInstanceUID=UID(sop_uid), SOPClassUID=UID(ROOT + sop_class)), ExplicitVRLittleEndian)
    return like[: len(like) - len(_data_of(like))] + content


def _data_of(content: bytes) -> bytes:
    return content[144 + struct.unpack_from("<L", content, 140)[0] :]


Make = Callable[[Path], bytes]


def encodings() -> dict[str, Make]:
    """Makers of the same pictures in each encoding that a tool here can write, by transfer syntax."""

    def plain(uid: str) -> Make:
        return lambda folder: as_file(picture(), uid)

    def compressed(uid: str, bits: int = 12, **options: Any) -> Make:
        def make(folder: Path) -> bytes:
            ds = dcmread_of(as_file(picture(bits)))
            ds.compress(UID(uid), generate_instance_uid=False, **options)
            return as_file(ds, uid)

        return make

    def dcmtk(program: str, *options: str, bits: int = 12) -> Make:
        return lambda folder: encoded_by_dcmtk(folder, picture(bits), program, *options)

    return {
        "1.2.840.10008.1.2": plain("1.2.840.10008.1.2"),
        "1.2.840.10008.1.2.1": plain("1.2.840.10008.1.2.1"),
        "1.2.840.10008.1.2.1.99": plain("1.2.840.10008.1.2.1.99"),
        "1.2.840.10008.1.2.2": lambda folder: encoded_by_dcmtk(folder, picture(), "dcmconv", "--write-xfer-big"),
        "1.2.840.10008.1.2.1.98": lambda folder: with_transfer_syntax(
            as_file(picture(PixelData=encapsulate([gradient().tobytes()])), RLELossless), "1.2.840.10008.1.2.1.98"
        ),
        "1.2.840.10008.1.2.4.50": dcmtk("dcmcjpeg", "+eb", "+q", "98", bits=8),
        "1.2.840.10008.1.2.4.51": dcmtk("dcmcjpeg", "+ee", "+q", "98"),
        "1.2.840.10008.1.2.4.53": dcmtk("dcmcjpeg", "+es", "+q", "98"),
        "1.2.840.10008.1.2.4.55": dcmtk("dcmcjpeg", "+ep", "+q", "98"),
        "1.2.840.10008.1.2.4.57": dcmtk("dcmcjpeg", "+el"),
        "1.2.840.10008.1.2.4.70": dcmtk("dcmcjpeg", "+e1"),
        "1.2.840.10008.1.2.4.80": dcmtk("dcmcjpls", "+el"),
        "1.2.840.10008.1.2.4.81": dcmtk("dcmcjpls", "+en"),
        "1.2.840.10008.1.2.4.90": compressed("1.2.840.10008.1.2.4.90"),
        "1.2.840.10008.1.2.4.91": compressed("1.2.840.10008.1.2.4.91", j2k_cr=[4]),
        "1.2.840.10008.1.2.5": dcmtk("dcmcrle"),
    }


def dcmread_of(content: bytes) -> Dataset:
    """A file's data set, as pydicom reads it."""
    return dcmread(io.BytesIO(content), force=True)


def with_meta(meta: FileMetaDataset, data: bytes) -> bytes:
    """A file of this file meta information and data set."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return bytes(128) + b"DICM" + buffer.getvalue() + data
