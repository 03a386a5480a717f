"""What is made wrong: well-formed messages and objects of every kind that the listener has to do with.

``python -m tests.fuzz corpus`` writes them to `corpus/`, where files that once brought a fault to light stay, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_listener.received import split_file
from tests.fuzz import messages
from tests.unit.dicom_listener.objects import as_file, encoded, image, report

CORPUS = Path(__file__).with_name("corpus")
# Fixed, so that the corpus is the same whenever it is made.
UIDS = {
    "SOPInstanceUID": "1.2.3.4.5.6.7.1",
    "StudyInstanceUID": "1.2.3.4.5.6.7.2",
    "SeriesInstanceUID": "1.2.3.4.5.6.7.3",
}


def _nested() -> Dataset:
    code, concept, content = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", "one"
    concept.ConceptNameCodeSequence = [code]
    content.ContentSequence = [concept, concept]
    content.is_undefined_length_sequence_item = True
    ds = report(ContentSequence=[content], **UIDS)
    ds["ContentSequence"].is_undefined_length = True
    equipment = Dataset()
    equipment.Manufacturer, equipment.ManufacturerModelName = "Makers", "Model"
    ds.ContributingEquipmentSequence = [equipment]
    private = ds.private_block(0x0009, "FUZZ", create=True)
    private.add_new(0x01, "UN", b"\x01\x02\x03\x04")
    return ds


def _texts() -> dict[str, Dataset]:
    """Headers in other characters (PS3.5 annex H, I, J)."""
    japanese = image(SpecificCharacterSet=["", "ISO 2022 IR 87"], **UIDS)
    japanese.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    korean = image(SpecificCharacterSet=["", "ISO 2022 IR 149"], **UIDS)
    korean.PatientName = "Hong^Gildong=洪^吉洞=홍^길동"
    chinese = image(SpecificCharacterSet="GB18030", **UIDS)
    chinese.PatientName = "Wang^XiaoDong=王^小东"
    greek = image(SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος", **UIDS)
    utf8 = image(SpecificCharacterSet="ISO_IR 192", PatientName="Жуков^Иван", StudyDescription="שלום", **UIDS)
    return {"japanese": japanese, "korean": korean, "chinese": chinese, "greek": greek, "utf8": utf8}


def data_sets() -> dict[str, bytes]:
    """Encoded data sets, in several transfer syntaxes."""
    made = {
        "explicit": encoded(image(**UIDS)),
        "implicit": encoded(image(**UIDS), ImplicitVRLittleEndian),
        "big": encoded(image(PixelData=None, **UIDS), ExplicitVRBigEndian),
        "nested": encoded(_nested()),
        "nested-implicit": encoded(_nested(), ImplicitVRLittleEndian),
        "fragments": encoded(_encapsulated(), "1.2.840.10008.1.2.5"),
    }
    for name, ds in _texts().items():
        made[f"text-{name}"] = encoded(ds)
    for name in ("explicit", "nested"):
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        made[f"deflated-{name}"] = deflater.compress(made[name]) + deflater.flush()
    return made


def _encapsulated() -> Dataset:
    ds = image(PixelData=encapsulate([b"\x00" * 64]), **UIDS)
    ds["PixelData"].is_undefined_length = True
    return ds


def files() -> dict[str, bytes]:
    """Whole files."""
    return {
        "image": as_file(image(**UIDS)),
        "report": as_file(_nested()),
        "big": as_file(image(PixelData=None, **UIDS), ExplicitVRBigEndian),
    }


def commands() -> dict[str, bytes]:
    """Command sets."""
    instance = UIDS["SOPInstanceUID"]
    return {
        "echo": messages.command(messages.C_ECHO_RQ, sop_class=messages.VERIFICATION),
        "store": messages.command(messages.C_STORE_RQ, instance=instance, data=True),
        "find": messages.command(messages.C_FIND_RQ, data=True),
        "event": messages.command(messages.N_EVENT_REPORT_RQ, instance=instance, data=True),
        "cancel": messages.command(messages.C_CANCEL_RQ),
    }


def requests() -> dict[str, bytes]:
    """A-ASSOCIATE-RQ PDUs."""
    many = ((number, (messages.MR_IMAGE, messages.EXPLICIT)) for number in range(1, 256, 2))
    return {
        "plain": messages.associate_rq(),
        "rich": messages.associate_rq(user_items=messages.rich_user_items()),
        "many": messages.associate_rq(contexts=many),
        "none": messages.associate_rq(contexts=()),
    }


def conversations() -> dict[str, list[bytes]]:
    """What one peer sends over a connection, PDU by PDU."""
    request, instance = messages.associate_rq(), UIDS["SOPInstanceUID"]
    whole = data_sets()
    told = {
        "echo": [request, messages.echo(), messages.release_rq()],
        "echoes": [request, *(messages.echo(message_id=number) for number in range(1, 9)), messages.release_rq()],
        "abort": [request, messages.echo(), messages.abort()],
        "silent": [request],
        "events": [
            request,
            messages.data_tf(messages.pdv(3, 3, commands()["event"]), messages.pdv(3, 2, whole["implicit"])),
            messages.release_rq(),
        ],
        "release twice": [request, messages.release_rq(), messages.release_rq()],
        "answers": [request, messages.release_rp(), messages.pdu(0x02, bytes(68)), messages.pdu(0x03, bytes(4))],
        "split command": [
            request,
            messages.data_tf(messages.pdv(1, 1, commands()["echo"][:20])),
            messages.data_tf(messages.pdv(1, 3, commands()["echo"][20:])),
            messages.release_rq(),
        ],
    }
    for name, context in (("explicit", 5), ("implicit", 3), ("big", 7), ("deflated-explicit", 9), ("nested", 5)):
        stored = messages.store(whole[name], instance, context=context, piece=300)
        told[f"store {name}"] = [request, *stored, messages.echo(), messages.release_rq()]
    joined = b"".join(messages.store(whole["explicit"], instance))
    told["stores"] = [request, joined, joined, joined, messages.release_rq()]
    return told


def bodies() -> dict[str, bytes]:
    """Bodies of store requests, with the boundary "a1b2"."""
    plain = b"--a1b2\r\nContent-Type: application/dicom\r\n\r\nfirst\r\n--a1b2\r\n\r\nsecond\r\n--a1b2--\r\n"
    return {
        "two": plain,
        "framed": b"a preamble\r\n" + plain + b"an epilogue",
        "empty": b"--a1b2--\r\n",
        "like the boundary": b"--a1b2\r\ncontent-type:image/jls; x=y\r\nX: 1\r\n\r\n--a1b\r\n--a1b3\r\n-\r\n--a1b2--",
        "object": b"--a1b2\r\nContent-Type: application/dicom\r\n\r\n" + files()["image"] + b"\r\n--a1b2--\r\n",
    }


def queries() -> dict[str, bytes]:
    """Query strings of searches."""
    return {
        "viewer": b"limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060&StudyDate=20200101-",
        "person": b"PatientName=*Do%C3%A9*&00100020=P%3F&PatientBirthDate=-19991231&ModalitiesInStudy=CT,MR",
        "numbers": b"SeriesNumber=1%5C2&InstanceNumber=3&SOPInstanceUID=1.2,1.3&includefield=all",
        "sequence": b"00400275.00400009=X&RequestAttributesSequence.ScheduledProcedureStepID=Y&StudyTime=10-",
    }


def heads() -> dict[str, bytes]:
    """What stands beside the path of a request: query, Accept, Content-Type, Range, Host, a line each."""
    related = b'multipart/related; type="application/dicom"; boundary=a1b2'
    return {
        "rendered": b"viewport=64,32,1,2,-3,4&window=40,400,sigmoid&quality=90\nimage/png\n\n\nhost.example:8080",
        "stored": b"accept=application/dicom%2Bxml\n*/*;q=0.1\n" + related + b"\nbytes=1-2\n[::1]:80",
        "ranges": b"window=1,2,linear-exact\napplication/dicom+json\napplication/dicom\nbytes=-5\nhost",
    }


def accepts() -> dict[str, bytes]:
    """Accept headers."""
    return {
        "viewer": b'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        "many": b'multipart/related;type="image/jls";transfer-syntax=1.2.840.10008.1.2.4.80;q=0.5, */*;q=.1',
        "extended": b"multipart/related; type*=utf-8''image%2Fjls; name*0=a; name*1=b; q=nan",
    }


def kinds() -> Mapping[str, Mapping[str, bytes]]:
    """Everything, by its kind: the names of the fuzz targets' folders in the corpus."""
    return {
        "data_set": data_sets(),
        "file": files(),
        "command": commands(),
        "request": requests(),
        "conversation": {name: b"".join(pdus) for name, pdus in conversations().items()},
        "body": bodies(),
        "query": queries(),
        "head": heads(),
        "accept": accepts(),
    }


def write_corpus(folder: Path = CORPUS) -> int:
    """Write the well-formed ones; returns how many files there are now."""
    for kind, made in kinds().items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (folder / kind / f"{name.replace(' ', '-')}.bin").write_bytes(content)
    return sum(1 for path in folder.rglob("*.bin"))


def corpus(kind: str) -> dict[str, bytes]:
    """The files of a kind, by name."""
    return {path.stem: path.read_bytes() for path in sorted((CORPUS / kind).glob("*.bin"))}


def data_set_of(content: bytes) -> bytes:
    """The encoded data set of a file."""
    return bytes(split_file(content)[1])
