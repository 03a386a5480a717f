"""DIMSE command sets."""

from __future__ import annotations

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode as decode_data_set
from pynetdicom.dsutils import encode

from dicom_listener import dimse
from dicom_listener.dimse import NotDimse, Request


def command_set(**values: object) -> bytes:
    """A command set as pynetdicom encodes it."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    encoded = encode(ds, True, True)
    assert encoded is not None
    return encoded


def store_request() -> bytes:
    """A C-STORE request as pynetdicom encodes it."""
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    primitive.AffectedSOPInstanceUID = "1.2.3.4"
    primitive.Priority = 2
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(primitive)
    message.command_set.CommandDataSetType = 1
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded


def test_request_of_another_implementation_is_read() -> None:
    """What pynetdicom encodes is what is decoded."""
    assert dimse.decode(store_request()) == Request(
        command=dimse.C_STORE_RQ,
        message_id=7,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid="1.2.3.4",
        has_data_set=True,
    )


@pytest.mark.parametrize("comment", ["", "odd", "even", "x" * 100])
def test_response_is_read_by_another_implementation(comment: str) -> None:
    """What is encoded is what pynetdicom decodes: status, comment of 64 characters at most, and whose answer it is."""
    request = dimse.decode(store_request())
    pdus = dimse.command_pdus(5, dimse.response(request, 0xA900, comment), 0)
    kind, length, pdv_length, context_id, header = struct.unpack_from(">BxLLBB", pdus)
    assert (kind, length, pdv_length, context_id, header) == (4, len(pdus) - 6, len(pdus) - 10, 5, 3)
    ds = decode_data_set(io.BytesIO(pdus[12:]), True, True)
    assert (ds.Status, ds.MessageIDBeingRespondedTo, ds.CommandField) == (0xA900, 7, 0x8001)
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == (request.sop_class_uid, request.sop_instance_uid)
    assert ds.get("ErrorComment", "") == comment[:64]
    assert ds.CommandGroupLength == len(pdus) - 12 - 12
    message = dimse_messages.C_STORE_RSP()
    message.command_set = ds
    assert message.message_to_primitive().is_valid_response


@given(st.integers(min_value=7, max_value=200))
def test_response_is_cut_to_what_the_peer_takes(max_pdu: int) -> None:
    """No PDU is longer than the peer's limit, the last fragment alone is marked so, and together they answer."""
    answer = dimse.response(Request(dimse.C_STORE_RQ, 1, "1.2.3", "1.2.3.4", True), 0)
    pdus, together, last = dimse.command_pdus(1, answer, max_pdu), b"", []
    while pdus:
        (length,) = struct.unpack_from(">L", pdus, 2)
        assert length <= max_pdu
        last.append(pdus[11])
        together += pdus[12 : 6 + length]
        pdus = pdus[6 + length :]
    assert together == answer
    assert last == [1] * (len(last) - 1) + [3]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\0",
        store_request()[:-1],
        command_set(MessageID=1),
        command_set(CommandField=1),
        command_set(PatientID="X", CommandField=1, MessageID=1),
    ],
)
def test_what_is_no_command_set_is_named(broken: bytes) -> None:
    """An early end, other groups, and missing fields are told from requests."""
    with pytest.raises(NotDimse):
        dimse.decode(broken)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(noise: bytes) -> None:
    """Nothing but `NotDimse` comes of bytes from outside."""
    with contextlib.suppress(NotDimse):
        dimse.decode(noise)
