"""What is fuzzed inside a process: functions of bytes that may refuse them with the errors they document, and no others."""

from __future__ import annotations

import datetime as dt
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from dicom_listener.characters import settle
from dicom_listener.data_set import PIXEL_TAGS, elements, encoding_of, inflated, parsed
from dicom_listener.description import describe
from dicom_listener.received import Received, file_header, read_received, split_file
from fhir_records.errors import ObjectNotStorable
from tests.fuzz.messages import BIG, DEFLATED, EXPLICIT, IMPLICIT, MR_IMAGE

SYNTAXES = (EXPLICIT, IMPLICIT, BIG, DEFLATED, "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.5")
# A case takes milliseconds; one that takes so many seconds hangs.
CASE_S = 10
AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)

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
            assert all(a.end == b.offset for a, b in zip(outline, outline[1:], strict=False))
            ds = parsed(plain, encoding, [element for element in outline if element.tag not in PIXEL_TAGS])
            settle(ds)


def index_entry(data: bytes) -> None:
    """What the index would keep of a data set: strings that a database takes, numbers that fit."""
    for syntax in SYNTAXES:
        with suppress(ObjectNotStorable):
            arrival = describe(data, _received(syntax), dt.UTC).arrival
            for text in (arrival.study_uid, arrival.patient.name, arrival.study_description, arrival.modality):
                assert "\0" not in text
                text.encode()  # no surrogates
            for number in (arrival.rows, arrival.columns, arrival.number_of_frames):
                assert number is None or abs(number) < 2**31


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


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


# By name: the function, and the kinds of the corpus that it starts from.
TARGETS: Mapping[str, tuple[Target, Sequence[str]]] = {
    "walk": (walk, ("data_set",)),
    "index_entry": (index_entry, ("data_set",)),
    "stored_file": (stored_file, ("file",)),
    "announced": (announced, ("command",)),
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
