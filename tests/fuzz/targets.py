"""What is fuzzed inside a process: functions of bytes, which may refuse them with the errors that they document."""

from __future__ import annotations

import datetime as dt
import itertools
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from dicom_listener import dimse, negotiation
from dicom_listener.characters import settle
from dicom_listener.data_set import PIXEL_TAGS, elements, encoding_of, inflated, parsed
from dicom_listener.description import describe
from dicom_listener.examination import Examination
from dicom_listener.gate import Rejection
from dicom_listener.pdu_stream import Limits, Over, PduStream, Phase
from dicom_listener.received import Received, file_header, read_received, split_file
from fhir_records.errors import ObjectNotStorable
from tests.fuzz import web_targets
from tests.fuzz.messages import BIG, DEFLATED, EXPLICIT, IMPLICIT, MR_IMAGE

SYNTAXES = (EXPLICIT, IMPLICIT, BIG, DEFLATED, "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.5")
# A case takes milliseconds; one that takes so many seconds hangs.
CASE_S = 10
AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)

LIMITS = Limits(max_pdu=16384, artim_s=2, message_s=2, min_bytes_per_second=1, idle_s=2)

Target = Callable[[bytes], None]


def _received(syntax: str) -> Received:
    return Received(MR_IMAGE, "1.2.3.4.5.6.7.1", syntax, "dicom:FUZZ", "FUZZ", "WETREAD", "127.0.0.1", AT)


def walk(data: bytes) -> None:
    """The outer structure of a data set, in every encoding, and its elements decoded and their text settled."""
    for syntax in SYNTAXES:
        with suppress(ObjectNotStorable):
            encoding = encoding_of(syntax)
            plain = inflated(data, syntax)
            outline = list(elements(plain, encoding))
            assert all(element.offset < element.end <= len(plain) for element in outline)
            assert all(a.end == b.offset for a, b in itertools.pairwise(outline))
            ds = parsed(plain, encoding, [element for element in outline if element.tag not in PIXEL_TAGS])
            settle(ds)


def index_entry(data: bytes) -> None:
    """What the index would keep of a data set: strings that a database takes, numbers that fit."""
    for syntax in SYNTAXES:
        with suppress(ObjectNotStorable):
            arrival = describe(data, _received(syntax), dt.UTC)
            for text in (arrival.study_uid, arrival.patient.name, arrival.study_description, arrival.modality):
                assert "\0" not in text
                text.encode()  # no surrogates
            for number in (arrival.rows, arrival.columns, arrival.number_of_frames):
                assert number is None or abs(number) < 2**31


def examined(data: bytes) -> None:
    """A data set that streams by in pieces is judged as it is when it lies there whole, however it is cut."""
    for syntax in SYNTAXES:
        verdicts = set()
        for size in (len(data) or 1, 1 << 12, 97, 13):
            examination = Examination(syntax)
            try:
                for start in range(0, len(data), size):
                    examination.feed(memoryview(data)[start : start + size])
                examination.finish()
            except ObjectNotStorable as error:
                verdicts.add(str(error))
            else:
                verdicts.add("")
        # Where it is cut decides no more than which of several faults is met first.
        assert verdicts == {""} or "" not in verdicts, verdicts
        try:
            describe(data, _received(syntax), dt.UTC)
        except ObjectNotStorable as error:
            # What success was answered for, the index must be able to read.
            assert "" not in verdicts, str(error)


def stored_file(data: bytes) -> None:
    """A whole file as it would lie in the spool."""
    with tempfile.NamedTemporaryFile(dir=_memory()) as file:
        file.write(data)
        file.flush()
        with suppress(ObjectNotStorable):
            read_received(Path(file.name))
        with suppress(ObjectNotStorable):
            split_file(data)


def announced(data: bytes) -> None:
    """Names and UIDs that a peer announces, on their way into file meta information and back."""
    text = data.decode("latin-1")
    uid, title, rest = text[:64], text[64:80], text[80:120]
    told = Received(uid, rest, EXPLICIT, f"dicom:{title}", title, title, "127.0.0.1", AT)
    with suppress(ObjectNotStorable):
        split_file(file_header(told))


def request(data: bytes) -> None:
    """A DIMSE command set, and the response to what it asks."""
    with suppress(dimse.NotDimse):
        asked = dimse.decode(data)
        for max_pdu in (0, 1, 7, 128, 16384):
            answer = dimse.response(asked, dimse.CANNOT_UNDERSTAND, "the reason – in words")
            pdus = dimse.command_pdus(1, answer, max_pdu)
            assert pdus[0] == 0x04
        told = dimse.decode(answer)
        assert told.command == asked.command | dimse.RESPONSE
        assert len(answer) % 2 == 0


def proposal(data: bytes) -> None:
    """An A-ASSOCIATE-RQ, and the answers to it."""
    with suppress(negotiation.NotAnAssociateRequest):
        found = negotiation.read_proposal(data[6:])
        negotiation.reject(negotiation.objection(found) or Rejection(2, 3, 2, "full"))
        accepted, answer = negotiation.accept(found, 131072)
        assert answer[0] == 0x02
        assert all(0 <= number <= 255 for number in accepted)


def pdus(data: bytes) -> None:
    """A stream of PDUs: each lies within what was sent, and the stream ends when the peer hangs up."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) + 4096)
        theirs.settimeout(CASE_S)
        threading.Thread(target=_say, args=(theirs, data), daemon=True).start()
        stream = PduStream(ours, LIMITS, lambda: False)
        taken = 0
        with suppress(Over):
            while True:
                kind, body = stream.next_pdu()
                taken += 6 + len(body)
                assert data[taken - len(body) : taken] == body
                stream.enter(Phase.IDLE)
                assert 1 <= kind <= 7
        assert taken <= len(data)


def _say(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


# By name: the function, and the kinds of the corpus that it starts from.
TARGETS: Mapping[str, tuple[Target, Sequence[str]]] = {
    "walk": (walk, ("data_set",)),
    "index_entry": (index_entry, ("data_set",)),
    "examined": (examined, ("data_set",)),
    "stored_file": (stored_file, ("file",)),
    "announced": (announced, ("command",)),
    "request": (request, ("command",)),
    "proposal": (proposal, ("request",)),
    "pdus": (pdus, ("conversation",)),
    "store_body": (web_targets.store_body, ("body",)),
    "arriving_file": (web_targets.arriving_file, ("file",)),
    "header_as_json": (web_targets.header_as_json, ("data_set",)),
    "attributes_of_file": (web_targets.attributes_of_file, ("file",)),
    "question": (web_targets.question, ("query",)),
    "request_head": (web_targets.request_head, ("head",)),
    "accept": (web_targets.accept, ("accept",)),
}


@contextmanager
def time_limit(seconds: float = CASE_S) -> Iterator[None]:
    """A case that hangs becomes a TimeoutError; in the main thread alone."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the case took more than {seconds:g} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
