"""What leaves as training data tells of nobody: whatever was written into an image, and wherever."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from dicom_listener.deidentification import WRITTEN_AS, deidentified, file_of
from dicom_listener.kept_attributes import kept, vendor
from dicom_listener.leftovers import identifying_values, leftovers
from dicom_listener.pixels import grey_frame
from fhir_records.errors import MayNotLeave
from fhir_records.pseudonyms import Pseudonyms
from tests.peers import dciodvfy

MR = "1.2.840.10008.5.1.4.1.1.4"
NAMES = Pseudonyms(b"k" * 32)
# What the decoder must find as it is, or names how the file is written.
_NOT_TOUCHED = {
    Tag(keyword)
    for keyword in (
        "SOPClassUID", "SpecificCharacterSet", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
        "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "PlanarConfiguration",
        "PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL", "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
        "ModalityLUTSequence",
    )
}  # fmt: skip
_TEXTS = ("LO", "SH", "LT", "ST", "UT", "UC", "PN", "AE", "CS", "UR")
PLACES = sorted(
    tag
    for tag, (vr, _, _, _, _) in DicomDictionary.items()
    if vr in (*_TEXTS, "UI", "DA", "DT", "UN") and tag not in _NOT_TOUCHED and tag >> 16 not in (0x0000, 0x0002, 0x0004)
)
SEQUENCES = sorted(
    tag for tag, (vr, *_) in DicomDictionary.items() if vr == "SQ" and tag not in _NOT_TOUCHED and tag >> 16 > 0x0004
)


def image() -> Dataset:
    """A small MR image of a person."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = MR, "1.2.3.4.5"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = MR, "1.2.3.4.5", "1.2.3.4", "1.2.3.9"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Okonkwo^Ada", "MRN0049213", "19610503", "F"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20261120", "083011", "ACC0099", "ST77"
    ds.Modality, ds.ImageType, ds.Manufacturer = "MR", ["ORIGINAL", "PRIMARY", "M"], "SIEMENS Healthineers"
    ds.EchoTime, ds.RepetitionTime, ds.SliceThickness, ds.PixelSpacing = "11.5", "500", "5", ["0.9", "0.9"]
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-120, -110, 44.5]
    ds.FrameOfReferenceUID, ds.InstanceNumber, ds.BodyPartExamined = "1.2.3.77", 17, "BRAIN"
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = np.arange(256, dtype="<u2").tobytes()
    return ds


def written(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def left(path: Path) -> bytes:
    """The bytes of what leaves."""
    return file_of(deidentified(path, 1, NAMES.person("1234567890123"), NAMES)[0])


secret = st.text("bcdfghjklmnpqrstvwxyz", min_size=7, max_size=12).map(lambda text: f"zq{text}")


def value_for(vr: str, word: str) -> object:
    """The secret as a value of this representation may hold it; and what to look for afterwards."""
    if vr == "UI":
        return "1.3.99." + "".join(str(ord(letter) % 10 + 1) for letter in word)
    if vr in ("DA", "DT"):
        day = sum(map(ord, word)) % 28 + 1
        return f"18{ord(word[2]) % 90 + 10}11{day:02}"
    if vr in {"CS", "AE"}:
        return word.upper()
    if vr == "UN":
        return word.encode()
    return f"{word}^{word[::-1]}" if vr == "PN" else word


@st.composite
def places(draw: st.DrawFn) -> tuple[Dataset, list[bytes]]:
    """Elements anywhere, in items of items, and private ones; and the secrets that they hold."""
    ds, secrets = Dataset(), []
    for tag in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=8, unique=True)):
        vr = DicomDictionary[tag][0]
        value = value_for(vr, draw(secret))
        ds.add(DataElement(tag, vr, value))
        secrets.append(value if isinstance(value, bytes) else str(value).split("^")[0].lower().encode())
    if draw(st.booleans()):
        word = draw(secret)
        block = ds.private_block(draw(st.sampled_from([0x0009, 0x0019, 0x0029, 0x2005])), f"{word} MAKER", create=True)
        other = draw(secret)
        vr = draw(st.sampled_from(["LO", "UT", "UN"]))
        block.add_new(0x01, vr, value_for(vr, other))
        secrets += [word.encode(), other.encode()]
    if draw(st.booleans()):
        inner, more = draw(places())
        ds.add(DataElement(draw(st.sampled_from(SEQUENCES)), "SQ", Sequence([inner])))
        secrets += more
    return ds, secrets


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=places())
def test_no_word_written_anywhere_leaves(
    made: tuple[Dataset, list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names, numbers, dates and UIDs in random attributes, items and private elements are in no byte that leaves."""
    more, secrets = made
    ds = image()
    ds.update(more)
    folder = tmp_path_factory.mktemp("made")
    content = left(written(ds, folder / "image.dcm")).lower()
    assert not [word for word in secrets if word in content]
    for word in (b"okonkwo", b"mrn0049213", b"19610503", b"20261120", b"083011", b"acc0099", b"st77", b"1.2.3."):
        assert word not in content


def test_every_attribute_of_the_profile_is_gone_or_replaced(tmp_path: Path) -> None:
    """All of PS3.15 Table E.1-1, put into one image: none keeps its value."""
    ds = image()
    for tag in dicom_anonymization_database_selector("dicomfields_2026c")["ALL_TAGS"]:
        number = tag[0] << 16 | tag[1]
        if len(tag) == 2 and number in DicomDictionary and tag[0] > 4 and number not in _NOT_TOUCHED:
            vr = DicomDictionary[number][0]
            if vr in (*_TEXTS, "UI", "DA", "DT"):
                ds.add(
                    DataElement(
                        number,
                        vr,
                        value_for(vr, f"zqx{number:08x}".translate(str.maketrans("0123456789", "ghjkmnprst"))),
                    )
                )
    path = written(ds, tmp_path / "all.dcm")
    before, after = dcmread(path), dcmread(io.BytesIO(left(path)))
    same = [element.keyword for element in before if element.tag in after and after[element.tag].value == element.value]
    told = {"PixelData", "BodyPartExamined", "SOPClassUID", "Modality"}
    numbers = {"EchoTime", "RepetitionTime", "SliceThickness", "PixelSpacing", "ImageOrientationPatient"}
    module = {"Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation", "BitsAllocated"}
    assert set(same) <= told | numbers | module | {"BitsStored", "HighBit", "InstanceNumber", "ImageType"}
    assert b"zqx" not in left(path).lower()


def test_pixels_stay_and_what_hides_in_them_goes(tmp_path: Path) -> None:
    """The values are the same; an overlay in unused bits, bytes behind the last element and the preamble are gone."""
    ds = image()
    stored = np.arange(256, dtype="<u2")
    ds.PixelData = (stored | 0xF000 * (stored % 3 == 0)).astype("<u2").tobytes()
    ds.add_new(0x60003000, "OW", b"zqoverlay!")
    ds.add_new(0xFFFCFFFC, "OB", b"zqtrailing")
    path = written(ds, tmp_path / "image.dcm")
    content = path.read_bytes()
    path.write_bytes(b"zqpreamble".ljust(128, b"\0") + content[128:])
    content = left(path)
    assert b"zq" not in content
    out = tmp_path / "out.dcm"
    out.write_bytes(content)
    assert (np.frombuffer(dcmread(out).PixelData, dtype="<u2") == np.arange(256)).all()


def test_what_is_no_number_does_not_stay_as_one(tmp_path: Path) -> None:
    """Text in an attribute that should hold a number is dropped, not copied."""
    ds = image()
    path = written(ds, tmp_path / "image.dcm")
    content = path.read_bytes().replace(b"500 ", b"zqan")
    path.write_bytes(content)
    assert b"zqan" in path.read_bytes() and b"zqan" not in left(path)


def test_a_number_that_tells_keeps_the_image_back(tmp_path: Path) -> None:
    """A patient's number that turns up as the value of a kept attribute is found in the bytes."""
    ds = image()
    ds.PatientID, ds.ImagingFrequency = "7654321", "7654321"
    with pytest.raises(MayNotLeave, match="1 values"):
        left(written(ds, tmp_path / "image.dcm"))


def test_the_object_says_what_was_done(tmp_path: Path) -> None:
    """Patient Identity Removed, the method and its code, and that dates were removed (PS3.15 section E.1.1)."""
    ds = dcmread(io.BytesIO(left(written(image(), tmp_path / "image.dcm"))))
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    code = ds.DeidentificationMethodCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert all(len(words) <= 64 for words in ds.DeidentificationMethod)
    assert (ds.Manufacturer, ds.BodyPartExamined, float(ds.EchoTime)) == ("Siemens", "BRAIN", 11.5)
    assert ds.ImagePositionPatient == [0, 0, 0] and ds.InstanceNumber is None
    assert str(ds.PatientName) == ds.PatientID == NAMES.person("1234567890123")


def test_uids_are_the_same_in_every_export_and_another_ones_elsewhere(tmp_path: Path) -> None:
    """A UID is replaced by the same one each time; under another secret by another one."""
    path = written(image(), tmp_path / "image.dcm")
    first, again = (deidentified(path, 1, "P", NAMES)[0] for _ in range(2))
    other = deidentified(path, 1, "P", Pseudonyms(b"o" * 32))[0]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert first[keyword].value == again[keyword].value != other[keyword].value
        assert len(first[keyword].value) <= 64
    assert NAMES.person("1") != NAMES.person("2") != Pseudonyms(b"o" * 32).person("2")
    assert "kkkk" not in repr(NAMES)


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.3"])
def test_other_classes_stay(uid: str, tmp_path: Path) -> None:
    """Secondary captures, ultrasound and whatever is not known to be a scanner's own pixels do not leave."""
    ds = image()
    ds.SOPClassUID = uid
    with pytest.raises(MayNotLeave, match="SOP class"):
        left(written(ds, tmp_path / "image.dcm"))


def test_colour_stays(tmp_path: Path) -> None:
    """Pixels in colour are a screen's."""
    ds = image()
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(16 * 16 * 3)
    with pytest.raises(MayNotLeave, match="colour"):
        left(written(ds, tmp_path / "image.dcm"))


def test_palettes_stay(tmp_path: Path) -> None:
    """One sample for each pixel that stands for a colour is no grey value."""
    ds = image()
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(ds, f"{colour}PaletteColorLookupTableData", bytes(range(256)))
    with pytest.raises(MayNotLeave, match="colour"):
        left(written(ds, tmp_path / "image.dcm"))


def test_the_last_look_finds_what_the_first_ones_missed() -> None:
    """Values of the original are found in bytes in any case and as parts of names; common words are not counted."""
    values = identifying_values(image())
    assert {"okonkwo", "mrn0049213", "19610503", "1.2.3.4"} <= values
    assert not {"brain", "f", "mr", MR} & values
    assert leftovers(b"... OKONKWO ...", values) == 1
    assert leftovers("MÜLLER, Müller".encode("latin-1"), frozenset(["müller"])) == 1
    assert leftovers(b"nothing", values) == 0


def test_makes_of_scanners() -> None:
    """A make that is known is named, whatever follows; any other text is not copied."""
    assert [vendor(name) for name in ("GE MEDICAL SYSTEMS", "Philips", "Dr Doe's scanner", "")] == [
        "GE", "Philips", "other", "other",
    ]  # fmt: skip
    ds = image()
    ds.BodyPartExamined, ds.ImageType = "DOE JANE", ["DOE", "JANE", "MPR"]
    assert "BodyPartExamined" not in kept(ds, 1) and kept(ds, 1).ImageType == ["MPR", "PRIMARY"]


@pytest.mark.parametrize(
    "name",
    [
        "philips_brain_mr",
        "transfer_syntaxes/CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
        "assorted/eCT_Supplemental.dcm",
        "assorted/MR2_J2KI.dcm",
    ],
)
def test_real_images_stay_valid_objects(name: str, test_data: Path, tmp_path: Path) -> None:
    """Of scanners' files the product is a valid image without errors, whose pixels are the original's."""
    path = test_data / "dicom" / name
    path = sorted(path.iterdir())[60] if path.is_dir() else path
    out = tmp_path / "out.dcm"
    out.write_bytes(left(path))
    assert dciodvfy(out).errors == ()
    assert np.allclose(grey_frame(out), grey_frame(path), atol=1e-3)
    assert str(dcmread(out).SOPClassUID) in {written_class for written_class, _ in WRITTEN_AS.values()}
