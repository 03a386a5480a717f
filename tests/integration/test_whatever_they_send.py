"""Whatever they send: stored bit for bit by the listener, and out of DICOMweb as a picture, or explained in words."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from sqlalchemy import select

from dicom_listener.association import Listener
from dicom_listener.pixels import read_header
from dicom_listener.received import read_received, split_file
from dicom_listener.sender import send
from dicom_listener.settings import ListenerSettings, Node, SenderSettings
from dicom_listener.spool import Spool
from dicom_listener.transfer_syntaxes import TRANSFER_SYNTAXES, Way, transfer_syntax
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import PeerRefused
from fhir_records.model import InstanceKind
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.renderings.source_header import put
from tests.integration import sent_objects as made
from tests.peers import HOST, dciodvfy, need, run_program, storescu
from tests.unit.dicom_listener.objects import as_file
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, header, report_of
from web.dicomweb_http import dicomweb_router
from web.dicomweb_reader import BoundedReader

US = SenderSettings(ae_title="CT1")
# Of the test data, those that cannot be filed, and a word of the reason.
NOT_STORABLE = {
    "HTJ2KLossless_08_RGB.dcm": "StudyInstanceUID",
    "HTJ2K_08_RGB.dcm": "StudyInstanceUID",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "ends early",
}


@dataclass
class Hospital:
    """A listener, its spool, and a server of what it stored."""

    listener: Listener
    spool: Spool
    database: Database
    web: TestClient

    @property
    def node(self) -> Node:
        """The listener, for senders."""
        return Node("us", "WETREAD", HOST, self.listener.port, timeout_s=60)

    def send(self, content: bytes) -> int:
        """The status of a C-STORE of this file; the failure's where it fails."""
        try:
            return send(content, self.node, US).status
        except PeerRefused as error:
            return error.status or -1
        finally:
            self.settle()

    def settle(self) -> None:
        """Wait until the index has followed."""
        assert self.listener.keeper.settled(30)

    def instance(self, sop_uid: str) -> tables.Instance:
        """The row of an object."""
        with self.database.session() as session:
            return session.scalars(select(tables.Instance).where(tables.Instance.sop_uid == sop_uid)).one()

    def stored(self, sop_uid: str) -> bytes:
        """The data set of an object as it lies in the spool."""
        return bytes(read_received(self.spool.path(self.instance(sop_uid).file_key))[1])

    def patient_name(self, sop_uid: str) -> str:
        """The name in the record of the patient whose object this is."""
        with self.database.session() as session:
            row = session.scalars(select(tables.Instance).where(tables.Instance.sop_uid == sop_uid)).one()
            return session.get_one(tables.Study, row.study_id).patient.name

    def address(self, sop_uid: str) -> str:
        """Of an object in DICOMweb."""
        with self.database.session() as session:
            row = session.scalars(select(tables.Instance).where(tables.Instance.sop_uid == sop_uid)).first()
            assert row is not None
            study = session.get_one(tables.Study, row.study_id).study_uid
            return f"/dicom-web/studies/{study}/series/{row.series_uid}/instances/{sop_uid}"

    def picture(self, sop_uid: str, frame: int = 1) -> np.ndarray:
        """A frame, rendered by the server."""
        answer = self.web.get(f"{self.address(sop_uid)}/frames/{frame}/rendered", headers={"Accept": "image/png"})
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    def refusal(self, sop_uid: str) -> str:
        """The words with which a picture is refused."""
        answer = self.web.get(f"{self.address(sop_uid)}/rendered", headers={"Accept": "image/png"})
        assert answer.status_code in (404, 406), answer.status_code
        return str(answer.json()["message"])


@pytest.fixture
def hospital(database: Database, tmp_path: Path) -> Iterator[Hospital]:
    """A listener that takes everything from this machine, and a DICOMweb server with bounded decoding."""
    spool = Spool(tmp_path / "spool")
    listener = Listener(ListenerSettings(host=HOST, port=0, min_free_bytes=0), database, spool)
    listener.start()
    with BoundedReader() as reader:
        app = FastAPI()
        app.include_router(dicomweb_router(database, spool.root, ZoneInfo("UTC"), (), reader), prefix="/dicom-web")
        try:
            yield Hospital(listener, spool, database, TestClient(app, raise_server_exceptions=False))
        finally:
            listener.stop(grace=2)


def by_dcmtk(path: Path, folder: Path, frame: int) -> np.ndarray | None:
    """The frame as DCMTK shows it, through the object's first window or else its range; None where it cannot.

    It does not know functional groups, so not those of enhanced objects.
    """
    out = folder / "theirs.png"
    ds = dcmread(path, stop_before_pixels=True)
    if "SharedFunctionalGroupsSequence" in ds:
        return None
    window = ["--use-window", "1"] if ds.get("WindowWidth") else ["--min-max-window"]
    for options in (window, []):
        command = [need("dcmj2pnm"), "--frame", str(frame), *options, "--write-png", str(path), str(out)]
        out.unlink(missing_ok=True)
        if subprocess.run(command, capture_output=True, check=False).returncode == 0 and out.is_file():
            return np.asarray(Image.open(out))
    return None


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """By how many of 255 grey values two pictures differ, the worst hundredth of their pixels left out."""
    if ours.ndim != theirs.ndim:
        ours, theirs = (one if one.ndim == 3 else np.stack([one] * 3, axis=-1) for one in (ours, theirs))
    assert ours.shape == theirs.shape
    return float(np.percentile(np.abs(ours.astype(int) - theirs.astype(int)), 99))


def test_all_of_the_test_data_goes_in_and_comes_out_as_pictures(
    hospital: Hospital, test_data: Path, tmp_path: Path
) -> None:
    """Each object is stored bit for bit and shown as DCMTK shows it, or kept in quarantine with the reason."""
    folders = ("assorted", "sr_tid1500", "transfer_syntaxes")
    paths = [path for name in folders for path in sorted((test_data / "dicom" / name).rglob("*.dcm"))]
    refused, compared = {}, {}
    for path in paths:
        content = path.read_bytes()
        meta, data = split_file(content)
        ds = dcmread(path, stop_before_pixels=True)
        # Twins of one object under one UID: each gets its own, at the same place in file and data set.
        sop_uid = str(ds.get("SOPInstanceUID"))
        other = generate_uid()[: len(sop_uid)].ljust(len(sop_uid), "7")
        data = (
            bytes(data).replace(sop_uid.encode(), other.encode())
            if ".1.99" not in meta.TransferSyntaxUID
            else bytes(data)
        )
        sop_uid = other if ".1.99" not in meta.TransferSyntaxUID else sop_uid
        meta.MediaStorageSOPInstanceUID = UID(sop_uid)
        status = hospital.send(made.with_meta(meta, data))
        if status != 0:
            refused[path.name] = status
            continue
        # A deflated data set of odd length is padded on its way (PS3.5 section A.5).
        assert hospital.stored(sop_uid) == data + bytes(len(data) % 2), path.name
        row = hospital.instance(sop_uid)
        if row.rows is None or row.kind is InstanceKind.OTHER:
            continue
        frame = row.number_of_frames
        ours = hospital.picture(sop_uid, frame)
        theirs = by_dcmtk(path, tmp_path, frame)
        if theirs is not None:
            compared[path.name] = difference(ours, theirs)
    assert set(refused) == set(NOT_STORABLE), refused
    assert len(compared) >= 25, sorted(compared)
    assert {name: most for name, most in compared.items() if most > 2} == {}
    with hospital.database.session() as session:
        reasons = list(session.scalars(select(tables.QuarantinedObject.reason)))
    assert len(reasons) == len(NOT_STORABLE)
    assert all(any(word in reason for reason in reasons) for word in NOT_STORABLE.values())


def test_one_ct_is_the_same_picture_in_every_syntax(hospital: Hospital, test_data: Path) -> None:
    """All encodings of the CT of the test data that hold its values give one picture, lossy ones nearly."""
    folder = test_data / "dicom" / "transfer_syntaxes"
    first = folder / "CTImage.dcm"
    pictures = {}
    for path in sorted(folder.glob("CTImage.dcm*")):
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        buffer = io.BytesIO()
        ds.save_as(buffer)
        assert hospital.send(buffer.getvalue()) == 0, path.name
        pictures[path.name] = hospital.picture(ds.SOPInstanceUID)
    assert len(pictures) == 16
    for name, picture in pictures.items():
        # Of 8 bits, one is 32 HU, 20 grey values of this window.
        most = 42 if "Process1T" in name else 8 if "Process" in name and "Process14" not in name else 2
        assert difference(picture, pictures[first.name]) <= most, name


def test_every_encoding_of_other_makers_is_shown(hospital: Hospital, tmp_path: Path) -> None:
    """A picture that DCMTK or pydicom encoded is stored as it came, and looks like the uncompressed one."""
    plain = {bits: made.picture(bits) for bits in (8, 12)}
    assert [hospital.send(as_file(ds)) for ds in plain.values()] == [0, 0]
    for uid, make in made.encodings().items():
        content = make(tmp_path)
        meta, data = split_file(content)
        assert meta.TransferSyntaxUID == uid
        assert hospital.send(content) == 0
        sop_uid = str(made.dcmread_of(content).SOPInstanceUID)
        assert hospital.stored(sop_uid) == bytes(data)
        twin = plain[8 if uid.endswith(".50") else 12].SOPInstanceUID
        assert difference(hospital.picture(sop_uid), hospital.picture(twin)) <= 3, uid


def test_video_and_unknown_compression_are_stored_and_explained(hospital: Hospital) -> None:
    """Video, JPEG XL and makers' own syntaxes are stored as they came; DICOMweb says what they are, and shows none."""
    videos = [uid for uid, one in TRANSFER_SYNTAXES.items() if one.way is Way.VIDEO]
    for uid in [*videos, *(f"1.2.840.10008.1.2.4.{end}" for end in (110, 111, 112)), "1.2.840.113619.5.2", "1.2.3.4.5"]:
        content = made.video(uid)
        assert hospital.send(content) == 0, uid
        sop_uid = str(made.dcmread_of(content).SOPInstanceUID)
        assert hospital.stored(sop_uid) == bytes(split_file(content)[1]), uid
        words = hospital.refusal(sop_uid)
        assert transfer_syntax(uid).name in words
        assert ("This is a video" in words) == (uid in videos)


def _kinds() -> dict[str, Dataset]:
    return {
        "pdf": made.pdf(),
        "ecg": made.ecg(),
        "report": made.basic_text_report(),
        "key objects": made.basic_text_report(SOPClassUID=UID(made.ROOT + "88.59")),
        "presentation state": made.without_image("11.1", "PR", ContentLabel="ONE"),
        "structure set": made.without_image("481.3", "RTSTRUCT", StructureSetLabel="ONE"),
        "private": made.without_image("4", "OT", SOPClassUID=UID("1.3.12.2.1107.5.9.1")),
    }


def test_what_is_no_image_is_stored_and_starts_no_read(hospital: Hospital) -> None:
    """Reports, documents, waveforms and the like are kept as they came, are no images, and have no picture."""
    for kind, ds in _kinds().items():
        content = as_file(ds)
        assert hospital.send(content) == 0, kind
        assert hospital.instance(ds.SOPInstanceUID).kind is InstanceKind.OTHER, kind
        assert hospital.stored(ds.SOPInstanceUID) == bytes(split_file(content)[1]), kind
        assert "no image" in hospital.refusal(ds.SOPInstanceUID), kind


def test_storescu_and_dcmsend_store_bit_for_bit(hospital: Hospital, tmp_path: Path) -> None:
    """What DCMTK's two senders send in compressed syntaxes lies in the spool as in their files."""
    for number, (uid, send_it) in enumerate(
        {
            "1.2.840.10008.1.2.4.70": lambda path: storescu(
                [path], HOST, hospital.listener.port, options=["--propose-lossless"]
            ),
            "1.2.840.10008.1.2.4.80": lambda path: run_program(
                "dcmsend", "-aec", "WETREAD", "--decompress-never", HOST, str(hospital.listener.port), str(path)
            ),
            "1.2.840.10008.1.2.5": lambda path: storescu(
                [path], HOST, hospital.listener.port, options=["--propose-rle"]
            ),
        }.items()
    ):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(made.encodings()[uid](tmp_path))
        run = send_it(path)
        assert run.status == 0, run.output
        hospital.settle()
        assert hospital.stored(str(dcmread(path).SOPInstanceUID)) == bytes(split_file(path.read_bytes())[1])


CHARACTER_SETS = {
    "latin 1": (b"ISO_IR 100", "Müller^Jürgen".encode("latin_1"), "Müller^Jürgen"),
    "latin 2": (b"ISO_IR 101", "Wałęsa^Łucja".encode("iso8859_2"), "Wałęsa^Łucja"),
    "latin 5": (b"ISO_IR 148", "Çavuş^Ümit".encode("iso8859_9"), "Çavuş^Ümit"),
    "latin 9": (b"ISO_IR 203", "Œuvré^Zoë".encode("iso8859_15"), "Œuvré^Zoë"),
    "cyrillic": (b"ISO_IR 144", "Люксембург^Иван".encode("iso8859_5"), "Люксембург^Иван"),
    "greek": (b"ISO_IR 126", "Διονύσιος^Νίκος".encode("iso8859_7"), "Διονύσιος^Νίκος"),
    "arabic": (b"ISO_IR 127", "قباني^لنزار".encode("iso8859_6"), "قباني^لنزار"),
    "hebrew": (b"ISO_IR 138", "שרון^דבורה".encode("iso8859_8"), "שרון^דבורה"),
    "thai": (b"ISO_IR 166", "นามสกุล^เขตต์".encode("iso8859_11"), "นามสกุล^เขตต์"),
    # PS3.5 annexes H.3.1, H.3.2, I.2, J.1, J.3 and K.2
    "japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "japanese with katakana": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "japanese, supplementary kanji": (
        b"\\ISO 2022 IR 87\\ISO 2022 IR 159",
        b"Yamada=\x1b$(D0!\x1b(B\x1b$B;3\x1b(B",
        "Yamada=丂山",
    ),
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "chinese, utf-8": (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東"),
    "chinese, gb18030": (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    # 竆 and 俓 have a caret and a backslash for a second byte
    "chinese, gbk": (b"GBK", "Wang^XiaoDong=竆^俓".encode("gbk"), "Wang^XiaoDong=竆^俓"),
    "chinese, code extension": (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东",
    ),
    # What is wrong, and what is shown all the same
    "none, and utf-8": (None, "Müller^Jürgen".encode(), "Müller^Jürgen"),
    "none, and latin 1": (None, "Müller^Jürgen".encode("latin_1"), "Müller^Jürgen"),
    "unknown, and utf-8": (b"KLINGON", "Łucja".encode(), "Łucja"),
    "utf-8 declared, latin 1 written": (b"ISO_IR 192", "Müller".encode("latin_1"), "Müller"),
    "latin 1 declared, utf-8 written": (b"ISO_IR 100", "Müller".encode(), "Müller"),
    "misspelt utf-8": (b"iso-ir 192", "Łucja".encode(), "Łucja"),
    "misspelt latin 1": (b"ISO IR 100", "Müller".encode("latin_1"), "Müller"),
    "by another name": (b"UTF-8", "Łucja".encode(), "Łucja"),
    "korean without its escape sequence": (b"ISO_IR 149", "홍^길동".encode("euc_kr"), "홍^길동"),
}


def test_names_and_descriptions_in_every_character_set(hospital: Hospital) -> None:
    """Name and description stand in record and DICOMweb as they were meant, and the bytes in the spool as they came."""
    for number, (word, (charset, name, meant)) in enumerate(CHARACTER_SETS.items()):
        sop_uid, patient_id = generate_uid(), f"PAT{number}".encode()
        data = made.data_set(
            sop_uid=sop_uid, charset=charset, name=name, description=name.split(b"=")[0], patient_id=patient_id
        )
        assert hospital.send(made.file_of(data, sop_uid)) == 0, word
        assert hospital.patient_name(sop_uid) == meant, word
        assert hospital.stored(sop_uid) == data, word
        first = meant.split("=", maxsplit=1)[0]
        (found,) = hospital.web.get(f"{hospital.address(sop_uid)}/metadata").json()
        assert found["00081030"]["Value"] == [first], word
        assert found["00100010"]["Value"][0]["Alphabetic"] == first, word
        if charset:
            assert found["00080005"]["Value"] == ["ISO_IR 192"], word


def test_our_report_about_it_has_the_name_right(hospital: Hospital, tmp_path: Path) -> None:
    """The SR copies the patient from such an image: it conforms, and DCMTK and pydicom read the name that was meant."""
    for word, (charset, name, meant) in CHARACTER_SETS.items():
        source, report = tmp_path / "source.dcm", tmp_path / "sr.dcm"
        source.write_bytes(made.file_of(made.data_set(charset=charset, name=name)))
        theirs, evidence = read_header(source), header()
        evidence.PatientName = theirs.PatientName
        if charset:
            put(evidence, "SpecificCharacterSet", theirs.SpecificCharacterSet)
        report.write_bytes(render_sr(report_of([evidence], ABSENT), [evidence]).content)
        errors, _ = dciodvfy(report)
        assert not errors, (word, errors)
        assert str(read_header(report).PatientName).rstrip("=") == meant, word
        run = run_program("dcm2json", str(report))
        if "is not supported by the utilized" in run.output:  # DCMTK's tables do not have every one
            continue
        assert run.status == 0, (word, run.output)
        groups = json.loads(run.output)["00100010"]["Value"][0]
        assert "=".join(groups.get(key, "") for key in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=") == meant


BROKEN = {
    "a date that is none": [made.element(8, 0x20, b"DA", b"2026-02-30")],
    "half a range of dates": [made.element(8, 0x20, b"DA", b"19990101- ")],
    "a birth date that is none": [made.element(0x10, 0x30, b"DA", b"00000000")],
    "an odd length": [made.element(8, 0x70, b"LO", b"ACM")],
    "a time that is none": [made.element(8, 0x20, b"DA", b"20260102"), made.element(8, 0x30, b"TM", b"25:99 ")],
    "a number that is none": [made.element(0x20, 0x13, b"IS", b"one ")],
    "a number with a fraction": [made.element(0x20, 0x13, b"IS", b"7.0 ")],
    "a number beyond all bounds": [made.element(0x20, 0x11, b"IS", b"9" * 40)],
    "a wrong representation": [made.element(0x20, 0x13, b"LO", b"12")],
    "a representation that is none": [made.element(8, 0x70, b"ZZ", b"ACME")],
    "a text far too long": [made.element(8, 0x1030, b"LO", b"x" * 4000)],
    "a group length": [made.element(8, 0, b"UL", b"\xff\0\0\0"), made.element(0x10, 0, b"UL", b"\0\0\0\0")],
    "private elements": [made.element(9, 0x10, b"LO", b"ACME"), made.element(9, 0x1001, b"UN", bytes(range(256)))],
    "a private element of nobody": [made.element(0x29, 0x1001, b"OB", b"\0\1\2\3")],
    "a sequence of undefined length": [
        made.element(8, 0x1111, b"SQ", b"\xfe\xff\0\xe0\xff\xff\xff\xff" + made.element(8, 0x1150, b"UI", b"1.2\0")
                     + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0", length=0xFFFFFFFF),
    ],
    "an unknown sequence of undefined length": [
        made.element(9, 0x1002, b"UN", b"\xfe\xff\0\xe0\xff\xff\xff\xff" + b"\xfe\xff\x0d\xe0\0\0\0\0"
                     + b"\xfe\xff\xdd\xe0\0\0\0\0", length=0xFFFFFFFF),
    ],
    "trailing padding": [made.element(0xFFFC, 0xFFFC, b"OB", bytes(1000))],
    "a name in the old form": [made.element(0x10, 0x10, b"PN", b"Doe, Jane ")],
    "a name of too many components": [made.element(0x10, 0x10, b"PN", b"a^b^c^d^e^f^g=h=i=j=k^l ")],
    "several names": [made.element(0x10, 0x10, b"PN", b"Doe^Jane\\Roe^Ann ")],
    "no name": [made.element(0x10, 0x10, b"PN", b"")],
    "a name of carets": [made.element(0x10, 0x10, b"PN", b"^^^^")],
    "control characters": [made.element(8, 0x1030, b"LO", b"a\0b\nc\x1b[d")],
    "an empty patient id": [made.element(0x10, 0x20, b"LO", b"")],
    "a sex that is none": [made.element(0x10, 0x40, b"CS", b"X ")],
}  # fmt: skip


def test_what_is_wrong_in_a_header_loses_no_image(hospital: Hospital) -> None:
    """An object with a wrong value is stored byte for byte, indexed, listed and shown."""
    for what, elements in BROKEN.items():
        sop_uid = generate_uid()
        data = made.data_set(elements, sop_uid=sop_uid)
        assert hospital.send(made.file_of(data, sop_uid)) == 0, what
        assert hospital.stored(sop_uid) == data, what
        assert hospital.picture(sop_uid).shape == (8, 8), what
        (found,) = hospital.web.get(f"{hospital.address(sop_uid)}/metadata").json()
        assert found["00080018"]["Value"] == [sop_uid], what
    assert len(hospital.web.get("/dicom-web/studies").json()) == len(BROKEN)


def test_one_uid_for_two_objects_keeps_both(hospital: Hospital) -> None:
    """Other pixels under a known UID answer success, are kept apart, and the first stays what is shown."""
    sop_uid = generate_uid()
    first = made.picture(SOPInstanceUID=UID(sop_uid))
    second = made.picture(SOPInstanceUID=UID(sop_uid), PixelData=bytes(2 * 64 * 96))
    assert hospital.send(as_file(first)) == 0
    shown = hospital.picture(sop_uid)
    assert hospital.send(as_file(second)) == 0
    with hospital.database.session() as session:
        rows = session.scalars(select(tables.Instance).where(tables.Instance.sop_uid == sop_uid)).all()
        assert sorted(row.standing for row in rows) == ["conflict", "current"]
    answer = hospital.web.get(f"/dicom-web/studies/{first.StudyInstanceUID}/instances").json()
    assert len(answer) == 1 and np.array_equal(hospital.picture(sop_uid), shown) and shown.max() > 100


def test_bombs_are_stored_and_not_lit(hospital: Hospital, tmp_path: Path) -> None:
    """A compressed frame that does not keep what its header promises is kept, and refused in words by the server."""
    for told, changed in {
        "larger than the limit": {"Rows": 60000, "Columns": 60000},
        "codestream has 64 x 96 pixels": {"Rows": 65, "Columns": 96},
        "codestream has 1 samples": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
    }.items():
        ds = made.dcmread_of(made.encodings()["1.2.840.10008.1.2.4.70"](tmp_path))
        for keyword, value in {"SOPInstanceUID": UID(generate_uid()), "PlanarConfiguration": 0, **changed}.items():
            setattr(ds, keyword, value)
        assert hospital.send(as_file(ds, "1.2.840.10008.1.2.4.70")) == 0
        assert told in hospital.refusal(ds.SOPInstanceUID)


def test_quarantine_says_why(hospital: Hospital) -> None:
    """What is no object is refused, kept, and listed with its reason and sender, and others go on."""
    bad = made.picture(StudyInstanceUID=None)
    assert hospital.send(as_file(bad)) & 0xF000 == 0xC000
    good = made.picture()
    assert hospital.send(as_file(good)) == 0
    with hospital.database.session() as session:
        (row,) = session.scalars(select(tables.QuarantinedObject)).all()
        assert (row.reason, row.caller) == ("StudyInstanceUID is missing or not a UID", "CT1")
        kept = hospital.spool.path(row.file_key).read_bytes()
        assert bytes(split_file(kept)[1]) == bytes(split_file(as_file(bad))[1])
    assert hospital.picture(good.SOPInstanceUID).shape == (64, 96)
