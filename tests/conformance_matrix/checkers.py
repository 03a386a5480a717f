"""What other makers' programs say of an object: dicom3tools, DCMTK, highdicom, pydicom, PDFium."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import pypdfium2
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.kinds import SR_CLASSES
from tests.peers import dciodvfy, run_program

# What `dsrdump` says of itself, whoever made the document.
_OF_DCMTK_ITSELF = (
    "W: Check for template constraints not yet supported",
    "W: The VR checker does not support this Specific Character Set",
    "W: Reading unknown/unsupported SpecificCharacterSet",  # code extensions
)
_LEFT_EMPTY = "Warning - Missing attribute or value that would be needed to build DICOMDIR"
_OF_A_VALUE = ("Error - Value invalid for this VR", "Error - Illegal root for UID", "Error - Bad attribute Value Multi")
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# What dciodvfy calls wrong: <it> or "it".
_VALUE = re.compile(r'[<"]([^<>"]+)[>"]')
# What DCMTK calls wrong: its tag.
_VIOLATES = re.compile(r"W: \w+ \(([0-9a-f]{4}),([0-9a-f]{4})\) violates VR definition in \w+$")
_DOCUMENTS = {*SR_CLASSES, KeyObjectSelectionDocumentStorage}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in one object. Empty is right, but for `passed_on`."""

    errors: tuple[str, ...]  # of dciodvfy, but for values that are as wrong in the source
    warnings: tuple[str, ...]  # of dciodvfy, of our own making
    passed_on: tuple[str, ...]  # of dciodvfy, that it gives of the source, too
    gate: tuple[str, ...]  # what the product's own gate holds it for
    dcmtk: tuple[str, ...]
    highdicom: tuple[str, ...]
    pydicom: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nobody found a fault of ours."""
        return not (self.errors or self.warnings or self.gate or self.dcmtk or self.highdicom or self.pydicom)


def verdict_of(content: bytes, folder: Path, known: frozenset[str], like: Dataset) -> Verdict:
    """Ask everybody about one object; arguments as of `verdicts_of`."""
    return verdicts_of([content], folder, known, like)[0]


def verdicts_of(contents: Sequence[bytes], folder: Path, known: frozenset[str], like: Dataset) -> list[Verdict]:
    """Ask everybody about all objects of one source.

    Args:
        contents: the objects, PS3.10 files.
        folder: for the files that the programs read.
        known: what dciodvfy says of the source.
        like: the source's header; patient and study must be as there.
    """
    paths = [folder / f"{number}.dcm" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = [dcmread(io.BytesIO(content)) for content in contents]
        dcmtk = _dcmtk(paths, read)
        whole = zip(paths, contents, read, dcmtk, strict=True)
        return [_verdict(path, content, ds, words, known, like) for path, content, ds, words in whole]


def _verdict(
    path: Path, content: bytes, ds: Dataset, dcmtk: tuple[str, ...], known: frozenset[str], like: Dataset
) -> Verdict:
    said = dciodvfy(path)
    # DCMTK complains of UIDs that are none and of values too many; the source's stand in the object as they are.
    given = any(not UID(str(like.get(keyword))).is_valid for keyword in _UIDS)
    given = given or any("Bad attribute Value Multi" in line for line in known)
    theirs = tuple(line for line in dcmtk if given or _is_of_a_value(line, known))
    return Verdict(
        errors=tuple(line for line in said.errors if not _is_passed_on(line, known)),
        warnings=tuple(line for line in said.warnings if not _is_passed_on(line, known)),
        passed_on=(
            *(line for line in (*said.errors, *said.warnings) if _is_passed_on(line, known)),
            *theirs,
        ),
        gate=faults_of(content),
        dcmtk=tuple(line for line in dcmtk if line not in theirs),
        highdicom=_tried(lambda: _READERS[str(ds.SOPClassUID)](content)),
        pydicom=(*_tried(lambda: _pydicom(ds)), *_altered(ds, like)),
    )


def _is_passed_on(line: str, known: frozenset[str]) -> bool:
    """Of errors those about a value of the source alone: that the source lacks an attribute excuses nothing."""
    if line.startswith(_LEFT_EMPTY):
        # A value that its representation does not allow is left empty: the source has it wrong.
        name = line.rsplit(" - ", 1)[1]
        return line in known or any(one.startswith("Error - Value invalid") and name in one for one in known)
    if line.startswith("Warning") or line.startswith("Error - Dicom dataset contains invalid data values"):
        return line in known
    value = _VALUE.search(line)
    return line.startswith(_OF_A_VALUE) and value is not None and any(value[1] in one for one in known)


def _is_of_a_value(line: str, known: frozenset[str]) -> bool:
    """Whether DCMTK complains of an attribute whose value dciodvfy calls wrong in the source, too."""
    about = _VIOLATES.match(line)
    return about is not None and any(
        one.startswith(f"Error - Value invalid for this VR - (0x{about[1]},0x{about[2]})") for one in known
    )


def _tried(read: Callable[[], object]) -> tuple[str, ...]:
    try:
        read()
    except Exception as error:  # whatever a reader raises is what it says
        return (f"{type(error).__name__}: {error}",)
    return ()


def _dcmtk(paths: Sequence[Path], read: Sequence[Dataset]) -> list[tuple[str, ...]]:
    """What DCMTK says of each. Most often nothing of any, which one start of its programs tells."""
    documents = [path for path, ds in zip(paths, read, strict=True) if ds.SOPClassUID in _DOCUMENTS]
    if not _said(paths, documents):
        return [()] * len(paths)
    return [_said([path], [path] if path in documents else []) for path in paths]


def _said(paths: Sequence[Path], documents: Sequence[Path]) -> tuple[str, ...]:
    runs = [run_program("dcmdump", "-q", "-M", *map(str, paths))]
    if documents:
        runs.append(run_program("dsrdump", "-v", *map(str, documents)))
    return tuple(
        line
        for run in runs
        for line in run.output.splitlines()
        if (run.status != 0 or line.startswith(("E:", "W:", "F:"))) and not line.startswith(_OF_DCMTK_ITSELF)
    )


def _pydicom(ds: Dataset) -> None:
    """Every element and all pixels."""
    for element in ds.iterall():
        if element.VR != "SQ":  # its items are elements, too
            str(element.value)
    if "PixelData" in ds or "FloatPixelData" in ds:
        assert ds.pixel_array.size
    if ds.SOPClassUID == EncapsulatedPDFStorage:
        document = pypdfium2.PdfDocument(bytes(ds.EncapsulatedDocument)[: ds.EncapsulatedDocumentLength])
        assert len(document) == 1 and document[0].get_textpage().get_text_range().strip()


def _altered(ds: Dataset, like: Dataset) -> tuple[str, ...]:
    """Attributes of patient and study that are not as in the source, where the source's value is allowed."""
    keywords = ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDescription", "StudyID")
    return tuple(
        f"{keyword} is not as in the source"
        for keyword in keywords
        if _text(ds, keyword) != _text(like, keyword) and keyword in like
    )


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return "\\".join("" if one is None else str(one) for one in values).strip()


def _report(content: bytes) -> None:
    """The groups of TID 1501, or 1410 and 1411, with their findings and measurements."""
    tree = hd.sr.srread(io.BytesIO(content)).content
    groups = [
        *tree.get_image_measurement_groups(),
        *tree.get_planar_roi_measurement_groups(),
        *tree.get_volumetric_roi_measurement_groups(),
    ]
    assert groups and all(group.finding_type is not None and group.tracking_uid for group in groups)
    # highdicom counts a group's observer type (TID 1002) among its evaluations.
    said = [one for group in groups for one in group.get_qualitative_evaluations()]
    assert sum(one.name.value != "121005" for one in said) == 1
    for group in groups:
        assert all(np.isfinite(measurement.value) for measurement in group.get_measurements())


def _selection(content: bytes) -> None:
    """The referenced objects of TID 2010."""
    ds = hd.ko.KeyObjectSelectionDocument.from_dataset(dcmread(io.BytesIO(content)))
    assert ds.content.get_references()


def _segments(content: bytes) -> None:
    """Every segment's pixels."""
    seg = hd.seg.segread(io.BytesIO(content))
    for number in seg.segment_numbers:
        assert seg.get_segment_description(number).segment_label
    assert seg.pixel_array.any()


def _map(content: bytes) -> None:
    """Every frame, in what its values mean."""
    frames = hd.imread(io.BytesIO(content)).get_frames(apply_real_world_transform=True)
    assert np.isfinite(frames).all() and frames.max() > 0


def _page(content: bytes) -> None:
    """The picture."""
    assert hd.imread(io.BytesIO(content)).get_frame(1, apply_icc_profile=False).shape[-1] == 3


def _pdf(content: bytes) -> None:
    """What it is: highdicom has no class for it."""
    assert dcmread(io.BytesIO(content)).MIMETypeOfEncapsulatedDocument == "application/pdf"


_READERS: dict[str, Callable[[bytes], None]] = {
    **dict.fromkeys(SR_CLASSES, _report),
    KeyObjectSelectionDocumentStorage: _selection,
    SegmentationStorage: _segments,
    ParametricMapStorage: _map,
    SecondaryCaptureImageStorage: _page,
    EncapsulatedPDFStorage: _pdf,
}
