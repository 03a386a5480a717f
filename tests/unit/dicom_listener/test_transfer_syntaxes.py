"""The table of transfer syntaxes, in the code and in the conformance statement."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import AllTransferSyntaxes, UID_dictionary

from dicom_listener.bounded import Bounds
from dicom_listener.decoding import MAX_FRAME_BYTES, MAX_FRAME_PIXELS, MAX_INFLATED_BYTES
from dicom_listener.transfer_syntaxes import TRANSFER_SYNTAXES, Way, transfer_syntax
from tests.unit.markdown import plain, section, table

CONFORMANCE = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"
# Of media and of real-time video: no stored object is in one of them.
NOT_OF_OBJECTS = ("1.2.840.10008.1.2.6.", "1.2.840.10008.1.2.7.", "1.2.840.10008.1.20")
DECODED = {
    **dict.fromkeys(Way, "no"),
    **dict.fromkeys((Way.PLAIN, Way.LIBRARY, Way.FRAGMENTS, Way.DEFLATED_FRAMES), "yes"),
    Way.GDCM_JPEG: "yes, grey ones",
    Way.VIDEO: "no: video",
    Way.ELSEWHERE: "no: the pixels are on another server",
}


def test_every_transfer_syntax_of_the_standard_is_in_the_table() -> None:
    """Those that pydicom's dictionary knows, retired ones too, have an entry."""
    known = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"} | set(AllTransferSyntaxes)
    assert {uid for uid in known if not uid.startswith(NOT_OF_OBJECTS)} <= set(TRANSFER_SYNTAXES)


def test_the_conformance_statement_has_this_table() -> None:
    """Each transfer syntax, its name, and whether it is decoded, in the same order."""
    rows = table(section(CONFORMANCE.read_text(), "Pixels of each transfer syntax"), "transfer syntax")
    documented = [tuple(plain(cell) for cell in row) for row in rows]
    assert documented == [(uid, one.name, "yes", DECODED[one.way]) for uid, one in TRANSFER_SYNTAXES.items()]


def test_the_conformance_statement_has_these_limits() -> None:
    """The limits of one frame are those that the code has."""
    rows = table(section(CONFORMANCE.read_text(), "Pixels of each transfer syntax"), "limit of one frame")
    assert [plain(row[1]) for row in rows] == [
        str(MAX_FRAME_PIXELS),
        str(MAX_FRAME_BYTES),
        str(MAX_INFLATED_BYTES),
        f"{Bounds().seconds:g}",
        f"{Bounds().memory_mb} MB",
    ]


@pytest.mark.parametrize("uid", ["1.2.840.113619.5.2", "1.2.3.4", ""])
def test_unknown_transfer_syntax_is_named(uid: str) -> None:
    """A private one has no decoder, and the words say which it is."""
    syntax = transfer_syntax(uid)
    assert not syntax.is_decoded
    assert uid in syntax.why_not


def test_every_missing_picture_has_its_words() -> None:
    """Whatever is not decoded is explained, and names the encoding; what is decoded is not."""
    for syntax in TRANSFER_SYNTAXES.values():
        assert bool(syntax.why_not) != syntax.is_decoded
        assert syntax.is_decoded or syntax.name in syntax.why_not
