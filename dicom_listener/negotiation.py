"""Associations negotiated: A-ASSOCIATE-RQ read, A-ASSOCIATE-AC and -RJ written, with pynetdicom's PDU classes.

Storage of every class, known, retired, private or not heard of yet, is accepted in the first transfer syntax that the
requestor names; so is Verification. Asynchronous operations are not negotiated: one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import (
    PresentationContext,
    build_context,
    negotiate_as_acceptor,
    negotiate_unrestricted,
)

from dicom_listener.gate import Rejection
from dicom_listener.received import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# PS3.4 section A.4.
VERIFICATION: Final = "1.2.840.10008.1.1"
# PS3.4 annex J: reported to us, in the provider's role. We are never a provider ourselves: modalities delete on it.
COMMITMENT: Final = "1.2.840.10008.1.20.1"
# PS3.7 annex A.2.1.
_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"

# PS3.8 section 9.3.4, table 9-21: result, source, reason.
_NO_REASON: Final = (1, 1, 1)
_APPLICATION_CONTEXT_NOT_SUPPORTED: Final = (1, 1, 2)
_PROTOCOL_VERSION_NOT_SUPPORTED: Final = (1, 2, 2)

_Item = MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification

# A node proposes the same each time, and each time pynetdicom needs some milliseconds for a hundred contexts.
_KEPT: Final = 32  # proposals
_KEPT_BYTES: Final = 32768  # of one; DCMTK's storescu proposes 128 contexts with less

_SUPPORTED: Final = (build_context(VERIFICATION),)


class NotAnAssociateRequest(Exception):
    """The bytes are no A-ASSOCIATE-RQ."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """An A-ASSOCIATE-RQ. Never changed: associations share it."""

    calling: str  # AE titles, without padding
    called: str
    protocol_version: int  # a bit for each that the requestor speaks
    max_pdu: int  # bytes, the longest that the requestor takes; 0: any
    primitive: A_ASSOCIATE


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str
    as_scp: bool  # whether the requestor may send requests on it

    @property
    def is_storage(self) -> bool:
        """Whether it is for storage."""
        return self.abstract_syntax not in (VERIFICATION, COMMITMENT)


def read_proposal(body: bytes) -> Proposal:
    """The A-ASSOCIATE-RQ that has ``body`` behind its PDU header.

    Raises:
        NotAnAssociateRequest: it cannot be decoded.
    """
    return _kept_proposal(body) if len(body) <= _KEPT_BYTES else _read_proposal(body)


def _read_proposal(body: bytes) -> Proposal:
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(b"\x01\x00" + len(body).to_bytes(4, "big") + body)
        primitive = pdu.to_primitive()
        for context in primitive.presentation_context_definition_list:
            if not context.abstract_syntax or not context.transfer_syntax:
                raise NotAnAssociateRequest("a presentation context without an abstract or a transfer syntax")
        return Proposal(
            calling=str(primitive.calling_ae_title).strip(),
            called=str(primitive.called_ae_title).strip(),
            protocol_version=int(pdu.protocol_version),
            max_pdu=int(primitive.maximum_length_received or 0),
            primitive=primitive,
        )
    except NotAnAssociateRequest:
        raise
    except Exception as error:  # boundary: pynetdicom raises whatever a broken PDU brings about
        raise NotAnAssociateRequest("the A-ASSOCIATE-RQ cannot be decoded") from error


_kept_proposal = lru_cache(_KEPT)(_read_proposal)


def objection(proposal: Proposal) -> Rejection | None:
    """Why the protocol itself does not let this be accepted, whoever asks; None where it does."""
    if not proposal.protocol_version & 1:
        return Rejection(*_PROTOCOL_VERSION_NOT_SUPPORTED, "the protocol version is not supported")
    if str(proposal.primitive.application_context_name) != _APPLICATION_CONTEXT:
        return Rejection(*_APPLICATION_CONTEXT_NOT_SUPPORTED, "the application context is not DICOM's")
    if not proposal.primitive.presentation_context_definition_list:
        return Rejection(*_NO_REASON, "no presentation context is proposed")
    return None


def accept(
    proposal: Proposal, max_pdu: int, *, reports: bool = False, storage: bool = True
) -> tuple[Mapping[int, Context], bytes]:
    """The accepted presentation contexts by their id, and the A-ASSOCIATE-AC.

    Args:
        proposal: what is accepted.
        max_pdu: the longest PDU that we take, in bytes.
        reports: whether storage commitment may be reported.
        storage: whether objects may be sent.
    """
    return _accept(proposal, max_pdu, reports, storage)


@lru_cache(_KEPT)
def _accept(proposal: Proposal, max_pdu: int, reports: bool, storage: bool) -> tuple[Mapping[int, Context], bytes]:
    request = proposal.primitive
    asked = {uid: (item.scu_role, item.scp_role) for item in _roles(request) if (uid := item.sop_class_uid)}
    known = list(_SUPPORTED)
    if reports and asked.get(UID(COMMITMENT), (None, None))[1]:
        known.append(_as_user())
    negotiate = negotiate_unrestricted if storage else negotiate_as_acceptor
    results, roles = negotiate(request.presentation_context_definition_list, known, asked)
    accepted = {number: _context(one) for one in results if one.result == 0 and (number := one.context_id)}
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(_APPLICATION_CONTEXT)
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result = 0x00
    answer.result_source = 0x01
    answer.presentation_context_definition_results_list = results
    answer.user_information = [*_ourselves(max_pdu), *roles]
    return MappingProxyType(accepted), A_ASSOCIATE_AC(answer).encode()


def reject(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ of a rejection."""
    answer = A_ASSOCIATE()
    answer.result = rejection.result
    answer.result_source = rejection.source
    answer.diagnostic = rejection.reason
    return A_ASSOCIATE_RJ(answer).encode()


def _context(context: PresentationContext) -> Context:
    return Context(str(context.abstract_syntax), str(context.transfer_syntax[0]), bool(context.as_scp))


def _as_user() -> PresentationContext:
    """Storage commitment with the requestor as the provider."""
    context = build_context(COMMITMENT)
    context.scu_role, context.scp_role = False, True
    return context


def _roles(request: A_ASSOCIATE) -> list[SCP_SCU_RoleSelectionNegotiation]:
    return [item for item in request.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]


def _ourselves(max_pdu: int) -> list[_Item]:
    """Who we are, and what we take (PS3.7 annex D.3.3)."""
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]
