"""One association, from the connection to its end (PS3.8 section 9.2, as acceptor)."""

from __future__ import annotations

import datetime as dt
import socket
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from dicom_listener import dimse
from dicom_listener.dimse import Request
from dicom_listener.faults import where
from dicom_listener.gate import Gate, NothingSaid, Rejection
from dicom_listener.handover import Ended, Ending, Handover, Opened, Rejected
from dicom_listener.negotiation import (
    COMMITMENT,
    Context,
    NotAnAssociateRequest,
    Proposal,
    accept,
    objection,
    read_proposal,
    reject,
)
from dicom_listener.pdu_stream import (
    A_ABORT,
    A_ASSOCIATE_RQ,
    A_RELEASE_RQ,
    P_DATA_TF,
    RELEASE_RESPONSE,
    Limits,
    Over,
    PduStream,
    Phase,
    Source,
)
from dicom_listener.reports import MAX_REPORT_BYTES, Reports
from dicom_listener.storing import Sender, Store, Storing
from fhir_records.store.associations import OpenAssociation

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class House:
    """What all conversations of an acceptor share."""

    gate: Gate
    handover: Handover
    store: Store
    limits: Limits
    clock: Callable[[], dt.datetime]
    stopping: Callable[[], bool]  # whether no more associations are wanted
    aborting: Callable[[], bool]  # whether those that are open are to be aborted
    reports: Reports | None = None  # who takes reports of storage commitment


@dataclass(slots=True)
class _Message:
    """A request whose data set is on its way."""

    context_id: int
    request: Request
    storing: Storing | None  # None: what it asks for is not done, its data set is read all the same
    status: int = 0  # that answers it then
    report: bytearray | None = None  # Event Information of a storage commitment's report, as it comes


@dataclass(slots=True)
class _Tally:
    stored: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Command:
    """A command set on its way."""

    context_id: int
    content: bytearray = field(default_factory=bytearray)


def converse(connection: socket.socket, address: str, house: House, *, tls: bool) -> None:
    """Speak with whoever connected until the connection is closed.

    Args:
        connection: blocking; `Gate.connected` has let it on.
        address: of the peer.
        house: what all share.
        tls: whether it came to the TLS port.
    """
    try:
        secured = house.gate.secured(connection, tls=tls)
    except NothingSaid:
        return
    except ConnectionError as error:
        house.handover.tell(Rejected("", "", address, str(error), house.clock()))
        return
    with secured:
        stream = PduStream(secured, house.limits, house.stopping)
        proposal = _proposal(stream, address, house)
        if proposal is None:
            return
        admitted = objection(proposal) or house.gate.requested(proposal.calling, proposal.called, address, secured)
        if isinstance(admitted, Rejection):
            house.handover.tell(Rejected(proposal.calling, proposal.called, address, admitted.words, house.clock()))
            with suppress(Over):
                stream.send(reject(admitted))
                stream.linger()
            return
        stream.aborting = house.aborting
        try:
            conversation = _Conversation(stream, proposal, address, house, storage=not admitted.reports_only)
            last_words = conversation.hold()
        finally:
            house.gate.left(admitted)
        stream.aborting = house.stopping
        last_words()


def _proposal(stream: PduStream, address: str, house: House) -> Proposal | None:
    """What the peer asks for; None where it asked for nothing, or not in proper form."""
    try:
        kind, body = stream.next_pdu()
        if kind != A_ASSOCIATE_RQ:
            raise Over(Ending.ABORTED_BY_PEER, "aborted before an A-ASSOCIATE-RQ")
        try:
            return read_proposal(bytes(body))
        except NotAnAssociateRequest as error:
            raise Over(Ending.ABORTED, str(error), Source.USER) from error
    except Over as over:
        # Who connects and goes without a word, as those do who look whether a port is open, asked for nothing.
        if stream.received_bytes or over.ending is not Ending.LOST:
            house.handover.tell(Rejected("", "", address, over.words, house.clock()))
        if over.abort is not None:
            stream.abort(over.abort)
            stream.linger()
        return None


class _Conversation:
    """An association that is let in."""

    def __init__(self, stream: PduStream, proposal: Proposal, address: str, house: House, *, storage: bool) -> None:
        self._stream = stream
        self._proposal = proposal
        self._house = house
        now = house.clock()
        self._association = OpenAssociation(uuid.uuid4(), proposal.calling, address, now)
        self._sender = Sender(self._association.id, proposal.calling, proposal.called, address)
        self._storage = storage
        self._contexts: Mapping[int, Context] = {}
        self._command: _Command | None = None
        self._message: _Message | None = None
        self._tally = _Tally()

    def hold(self) -> Callable[[], None]:
        """Answer until the association is over; what is still to be sent when its place is free again."""
        handover = self._house.handover
        handover.tell(Opened(self._association))
        ending, reason, last_words = self._until_over()
        if self._message is not None and self._message.storing is not None:
            self._message.storing.drop()
        handover.tell(
            Ended(
                association=self._association,
                ending=ending,
                reason=reason,
                stored=self._tally.stored,
                refused=self._tally.refused,
                received_bytes=self._stream.received_bytes,
                at=self._house.clock(),
            )
        )
        if ending is not Ending.RELEASED:
            caller, address = self._association.caller, self._association.address
            log.warning("association ended early", ending=ending.value, reason=reason, caller=caller, address=address)
        return last_words

    def _until_over(self) -> tuple[Ending, str, Callable[[], None]]:
        stream = self._stream
        try:
            reports = self._house.reports is not None and self._house.reports.may_come_from(self._proposal.calling)
            self._contexts, answer = accept(
                self._proposal, self._house.limits.max_pdu, reports=reports, storage=self._storage
            )
            stream.send(answer)
            self._answer_messages()
        except Over as over:
            source = over.abort
            return over.ending, over.words, lambda: self._abort(source)
        except Exception as error:  # boundary: one association must not end the acceptor
            log.error("an association failed", error=where(error))
            return Ending.ABORTED, "an error of the listener", lambda: self._abort(Source.NOT_SPECIFIED)
        return Ending.RELEASED, "", self._release

    def _release(self) -> None:
        with suppress(Over):
            self._stream.send(RELEASE_RESPONSE)
            self._stream.linger()

    def _abort(self, source: Source | None) -> None:
        if source is not None:
            self._stream.abort(source)
            self._stream.linger()

    def _answer_messages(self) -> None:
        """Answer message after message until the peer asks for the release."""
        stream = self._stream
        stream.enter(Phase.IDLE)
        while True:
            kind, body = stream.next_pdu()
            if kind == P_DATA_TF:
                self._take(body)
            elif kind == A_RELEASE_RQ:
                if self._message is not None or self._command is not None:
                    raise Over(Ending.ABORTED, "A-RELEASE-RQ within a message", Source.UNEXPECTED_PDU)
                return
            elif kind == A_ABORT:
                source = "service provider" if body[2] == 2 else "service user"
                raise Over(Ending.ABORTED_BY_PEER, f"{source}, reason {body[3]}")
            else:
                raise Over(Ending.ABORTED, "unexpected PDU", Source.UNEXPECTED_PDU)

    def _take(self, body: memoryview) -> None:
        """Take a P-DATA-TF apart (PS3.8 section 9.3.5)."""
        position, end = 0, len(body)
        while position < end:
            start = position + dimse.PDV_HEAD
            after = position + 4 + int.from_bytes(body[position : position + 4], "big")
            if start > after or after > end:
                raise _invalid("a presentation data value that does not fit its PDU")
            context_id, header, fragment = body[start - 2], body[start - 1], body[start:after]
            last = bool(header & dimse.LAST_BIT)
            if header & dimse.COMMAND_BIT:
                self._take_command(context_id, fragment, last=last)
            else:
                self._take_data(context_id, fragment, last=last)
            position = after

    def _take_command(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._message is not None:
            raise _invalid("a command where a data set was due")
        command = self._command
        if command is None:
            if context_id not in self._contexts:
                raise _invalid("a presentation context that was not accepted")
            self._stream.enter(Phase.MESSAGE)
            command = self._command = _Command(context_id)
        elif command.context_id != context_id:
            raise _invalid("a message in two presentation contexts")
        command.content += fragment
        if len(command.content) > dimse.MAX_COMMAND_BYTES:
            raise _invalid(f"a command set of more than {dimse.MAX_COMMAND_BYTES} bytes")
        if last:
            self._command = None
            self._begin(context_id, command.content)

    def _take_data(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        message = self._message
        if message is None:
            raise _invalid("a data set that belongs to no command")
        if message.context_id != context_id:
            raise _invalid("a message in two presentation contexts")
        if message.storing is not None:
            message.storing.take(fragment)
        elif message.report is not None:
            message.report += fragment
            if len(message.report) > MAX_REPORT_BYTES:
                raise _invalid(f"a report of more than {MAX_REPORT_BYTES} bytes")
        if last:
            self._finish(message)

    def _begin(self, context_id: int, command_set: bytearray) -> None:
        """Act on a request, at once or when its data set is there."""
        try:
            request = dimse.decode(command_set)
        except dimse.NotDimse as error:
            raise _invalid(str(error)) from error
        if request.command & dimse.RESPONSE:
            raise _invalid("a response to no request")
        context = self._contexts[context_id]
        message = _Message(context_id, request, None)
        if request.command == dimse.C_STORE_RQ and context.is_storage and context.as_scp:
            message.storing = Storing(self._house.store, request, context.transfer_syntax, self._sender)
        elif request.command == dimse.N_EVENT_REPORT_RQ and context.abstract_syntax == COMMITMENT:
            message.report = bytearray()
        else:
            message.status = _status(request, context)
        self._message = message
        if not request.has_data_set:
            self._finish(message)

    def _finish(self, message: _Message) -> None:
        """A message is whole: answer it, and do what need not be done before the answer."""
        if message.storing is not None:
            verdict = message.storing.finish()
            if verdict.status == dimse.SUCCESS:
                self._tally.stored += 1
            else:
                self._tally.refused += 1
            try:
                self._answer(message, verdict.status, verdict.comment)
            finally:
                if verdict.note is not None:
                    self._house.handover.tell(verdict.note)
            return
        status = message.status
        if message.report is not None and self._house.reports is not None:
            syntax = self._contexts[message.context_id].transfer_syntax
            status = self._house.reports.take(message.request, bytes(message.report), syntax, self._proposal.calling)
        self._answer(message, status)

    def _answer(self, message: _Message, status: int, comment: str = "") -> None:
        self._message = None
        self._stream.enter(Phase.IDLE)
        if message.request.command != dimse.C_CANCEL_RQ:
            answer = dimse.response(message.request, status, comment)
            self._stream.send(dimse.command_pdus(message.context_id, answer, self._proposal.max_pdu))


def _status(request: Request, context: Context) -> int:
    """What answers a request that stores nothing, and reports nothing."""
    if request.command == dimse.C_ECHO_RQ:
        return dimse.SUCCESS
    if request.command == dimse.C_STORE_RQ:
        return dimse.SOP_CLASS_NOT_SUPPORTED
    return dimse.UNRECOGNIZED_OPERATION


def _invalid(words: str) -> Over:
    return Over(Ending.ABORTED, words, Source.INVALID_PARAMETER)
