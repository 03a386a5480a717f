"""Storage SCU: sends objects to other nodes, and says what became of them (PS3.4 Annex B)."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.status import GENERAL_STATUS, STORAGE_SERVICE_CLASS_STATUS

from dicom_listener.checkpoint import set_checkpoint
from dicom_listener.library import prepare_library, set_no_delay
from dicom_listener.pixels import Decoder
from dicom_listener.received import split_file
from dicom_listener.settings import Node, SenderSettings
from dicom_listener.tls import client_context, no_handshake
from dicom_listener.transcoding import UNCOMPRESSED, can_be_uncompressed, encoded_anew, uncompressed
from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import ObjectNotStorable, PeerRefused, PeerUnavailable, PixelsNotReadable, SettingsError

VERIFICATION = "1.2.840.10008.1.1"
SUCCESS = 0x0000
# PS3.7 section C.5.14: what is said where no presentation context was accepted for the object.
SOP_CLASS_NOT_SUPPORTED = 0x0122
# An association holds 128 presentation contexts (PS3.8 section 9.3.2.2); an object may take two.
_KINDS_PER_ASSOCIATION = 64

# Between these, a data set can be encoded anew without touching its pixels.
_CONVERTIBLE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_WARNINGS = {0x0001, 0x0107, 0x0116}
# Processing Failure and Resource Limitation: another time it may go better.
_TRANSIENT = {0x0110, 0x0213}


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """The peer's answer to an object that it took."""

    status: int  # DIMSE status: success, or a warning
    meaning: str  # "success", or what the warning says


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one of many files."""

    path: Path
    status: int | None  # DIMSE status; None: it was not sent
    meaning: str
    delivered: bool
    may_pass: bool = False  # a failure that another attempt may turn into a success


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a presentation context is proposed for."""

    sop_class_uid: str
    transfer_syntax_uid: str


def echo(node: Node, settings: SenderSettings) -> None:
    """C-ECHO.

    Raises:
        PeerUnavailable: the node does not answer, or rejects the association.
        PeerRefused: it answers with a failure.
    """
    with associated(node, settings, [build_context(VERIFICATION)]) as assoc:
        status = assoc.send_c_echo()
        if "Status" not in status:
            raise PeerUnavailable(f"{node.name} did not answer C-ECHO.")
        if status.Status != SUCCESS:
            raise PeerRefused(f"{node.name} answered C-ECHO with {status.Status:04X}.", status=status.Status)


def send(
    content: bytes | Path, node: Node, settings: SenderSettings, alternatives: Collection[str] = ()
) -> SendOutcome:
    """Store one object (a DICOM file, or its bytes) at ``node``, as it is where the node takes its transfer syntax.

    Args:
        content: the object.
        node: where to.
        settings: who we are.
        alternatives: SOP classes of which a node may take one only. Where the object's own is among them, all are
            proposed: some nodes reject an association of which they accept no presentation context, and then nobody
            could tell that they would have taken another class.

    Raises:
        PeerRefused: the node does not want this object; to try again will not mend it. Carries the status.
        PeerUnavailable: the node does not answer, is full, or ended the association; to try again may.
        ObjectNotStorable: ``content`` is no DICOM file.
    """
    with _as_file(content) as path:
        kind = _kind(path)
        others = alternatives if kind.sop_class_uid in alternatives else ()
        kinds = [kind, *(_Kind(uid, kind.transfer_syntax_uid) for uid in others if uid != kind.sop_class_uid)]
        with associated(node, settings, _contexts(kinds)) as assoc:
            return _outcome(_store(assoc, path, kind, node), node)


def send_files(
    paths: Sequence[Path],
    node: Node,
    settings: SenderSettings,
    progress: Callable[[FileOutcome], None] | None = None,
    decoder: Decoder | None = None,
) -> Generator[FileOutcome, None, None]:
    """Store many files over one association (or as few as their kinds need); yields what became of each, in order.

    Args:
        paths: the files. They are sent as they are wherever the node takes their transfer syntax.
        node: where to.
        settings: who we are.
        progress: told of each file.
        decoder: makes compressed images uncompressed for a node that takes nothing else; None: it refuses those.

    Raises:
        PeerUnavailable: the association could not be had, or was lost; the rest was not sent.
    """
    for batch in _batches(paths):
        kinds = list(dict.fromkeys(kind for _, kind in batch if kind is not None))
        if not kinds:
            yield from (_told(progress, FileOutcome(path, None, "not a DICOM file", False)) for path, _ in batch)
            continue
        with associated(node, settings, _contexts(kinds, uncompress=decoder is not None)) as assoc:
            for path, kind in batch:
                yield _told(progress, _file_outcome(assoc, path, kind, node, decoder))


def _told(progress: Callable[[FileOutcome], None] | None, outcome: FileOutcome) -> FileOutcome:
    if progress is not None:
        progress(outcome)
    return outcome


def _file_outcome(
    assoc: Association, path: Path, kind: _Kind | None, node: Node, decoder: Decoder | None
) -> FileOutcome:
    if kind is None:
        return FileOutcome(path, None, "not a DICOM file", False)
    try:
        outcome = _outcome(_store(assoc, path, kind, node, decoder), node)
    except PeerRefused as error:
        return FileOutcome(path, error.status, str(error), False)
    except PeerUnavailable as error:
        if error.status is None:
            raise
        return FileOutcome(path, error.status, str(error), False, may_pass=True)
    return FileOutcome(path, outcome.status, outcome.meaning, True)


def _batches(paths: Iterable[Path]) -> Iterator[list[tuple[Path, _Kind | None]]]:
    """The files in order, with their kinds, cut where an association could not hold more kinds."""
    batch: list[tuple[Path, _Kind | None]] = []
    kinds: set[_Kind] = set()
    for path in paths:
        try:
            kind = _kind(path)
        except ObjectNotStorable:
            kind = None
        if kind is not None and kind not in kinds and len(kinds) == _KINDS_PER_ASSOCIATION:
            yield batch
            batch, kinds = [], set()
        if kind is not None:
            kinds.add(kind)
        batch.append((path, kind))
    if batch:
        yield batch


@contextmanager
def _as_file(content: bytes | Path) -> Iterator[Path]:
    """``content`` as a file, because pynetdicom sends files as they are, and data sets encoded anew."""
    if isinstance(content, Path):
        yield content
        return
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


@contextmanager
def _even(path: Path, kind: _Kind) -> Iterator[Path]:
    """``path``, or a copy of it where its deflated data set lacks the pad byte (PS3.5 section A.5)."""
    if not transfer_syntax(kind.transfer_syntax_uid).is_deflated:
        yield path
        return
    content = path.read_bytes()
    odd = len(split_file(content)[1]) % 2
    with _as_file(content + b"\0" if odd else path) as even:
        yield even


def _kind(path: Path) -> _Kind:
    """The SOP class and transfer syntax of a file.

    Raises:
        ObjectNotStorable: it is no DICOM file, or does not say them.
    """
    try:
        with path.open("rb") as file:
            head = file.read(144)
            rest = file.read(int.from_bytes(head[140:144], "little"))
    except OSError as error:
        raise ObjectNotStorable("The file cannot be read.") from error
    meta, _ = split_file(head + rest)
    if not meta.get("MediaStorageSOPClassUID") or not meta.get("MediaStorageSOPInstanceUID"):
        raise ObjectNotStorable("The file meta information names no SOP class or instance.")
    return _Kind(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))


def _contexts(kinds: Iterable[_Kind], *, uncompress: bool = False) -> list[PresentationContext]:
    """One context for each kind as it is, and one for what it can be encoded anew in."""
    contexts = []
    for kind in kinds:
        contexts.append(build_context(kind.sop_class_uid, kind.transfer_syntax_uid))
        others = [str(uid) for uid in _CONVERTIBLE[:2] if uid != kind.transfer_syntax_uid]
        if kind.transfer_syntax_uid in _CONVERTIBLE:
            contexts.append(build_context(kind.sop_class_uid, others))
        elif uncompress and can_be_uncompressed(kind.transfer_syntax_uid):
            contexts.append(build_context(kind.sop_class_uid, list(UNCOMPRESSED)))
    return contexts


@contextmanager
def associated(
    node: Node,
    settings: SenderSettings,
    contexts: list[PresentationContext],
    handlers: Sequence[EventHandlerType] = (),
) -> Iterator[Association]:
    """An association with ``node``, released in the end; ``handlers`` answer what the node asks meanwhile.

    Raises:
        PeerUnavailable: there is none to be had.
        PeerRefused: the node accepts none of the contexts.
    """
    prepare_library()
    ae = AE(ae_title=settings.ae_title)
    ae.connection_timeout = node.timeout_s
    ae.acse_timeout = node.timeout_s
    ae.dimse_timeout = node.timeout_s
    ae.network_timeout = node.timeout_s
    try:
        assoc = ae.associate(
            node.host,
            node.port,
            contexts=contexts,
            ae_title=node.ae_title,
            max_pdu=settings.max_pdu,
            tls_args=_tls_of(node),
            evt_handlers=[(evt.EVT_CONN_OPEN, set_no_delay), (evt.EVT_CONN_OPEN, set_checkpoint), *handlers],
        )
    except (OSError, RuntimeError) as error:
        raise PeerUnavailable(f"{node.name} cannot be reached.") from error
    if not assoc.is_established:
        raise _no_association(assoc, node)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _tls_of(node: Node) -> tuple[ssl.SSLContext, str] | None:
    """What pynetdicom secures the connection with: a context, and the name that the certificate must have.

    Raises:
        PeerUnavailable: the files for it cannot be used; once they are mended, sending may go on.
    """
    if node.tls is None:
        return None
    try:
        return client_context(node.tls), node.tls.server_name or node.host
    except SettingsError as error:
        raise PeerUnavailable(f"{node.name} cannot be reached over TLS: {error}") from error


def _no_association(assoc: Association, node: Node) -> PeerRefused | PeerUnavailable:
    if assoc.is_rejected:
        primitive = assoc.acceptor.primitive
        reason = primitive.reason_str if isinstance(primitive, A_ASSOCIATE) else "no reason given"
        return PeerUnavailable(f"{node.name} rejected the association: {reason}.")
    if assoc.rejected_contexts:
        return PeerRefused(f"{node.name} does not take this kind of object.", status=SOP_CLASS_NOT_SUPPORTED)
    why = no_handshake(node.tls, node.host, node.port, node.timeout_s) if node.tls is not None else ""
    if why:
        return PeerUnavailable(f"{node.name} cannot be talked to over TLS: {why}.")
    return PeerUnavailable(f"{node.name} cannot be reached, or ended the association.")


def _store(assoc: Association, path: Path, kind: _Kind, node: Node, decoder: Decoder | None = None) -> Dataset:
    """The peer's answer to one C-STORE.

    Raises:
        PeerRefused: no presentation context was accepted for it, or it cannot be made what the peer takes.
        PeerUnavailable: there was no answer.
    """
    accepted = {
        str(context.transfer_syntax[0])
        for context in assoc.accepted_contexts
        if context.abstract_syntax == kind.sop_class_uid
    }
    try:
        if kind.transfer_syntax_uid in accepted:
            with _even(path, kind) as even:
                status = assoc.send_c_store(even)
        elif kind.transfer_syntax_uid in _CONVERTIBLE and (other := _first_of(accepted)):
            status = assoc.send_c_store(encoded_anew(dcmread(path), other))
        elif decoder is not None and can_be_uncompressed(kind.transfer_syntax_uid) and (other := _first_of(accepted)):
            status = assoc.send_c_store(uncompressed(path, other, decoder))
        else:
            raise PeerRefused(f"{node.name} does not take this kind of object.", status=SOP_CLASS_NOT_SUPPORTED)
    except PixelsNotReadable as error:
        words = f"{node.name} takes this object uncompressed only. {error}"
        raise PeerRefused(words, status=SOP_CLASS_NOT_SUPPORTED) from error
    except (ValueError, AttributeError) as error:
        raise PeerRefused("The object cannot be encoded for sending.") from error
    except (OSError, RuntimeError) as error:
        raise PeerUnavailable(f"{node.name} ended the association.", maybe_there=True) from error
    if "Status" not in status:
        raise PeerUnavailable(f"{node.name} gave no answer to C-STORE.", maybe_there=True)
    return status


def _first_of(accepted: set[str]) -> str | None:
    return next((str(uid) for uid in _CONVERTIBLE if uid in accepted), None)


def _outcome(answer: Dataset, node: Node) -> SendOutcome:
    """What a C-STORE status means for us.

    Raises:
        PeerRefused: a failure that stays.
        PeerUnavailable: a failure that may pass.
    """
    status = int(answer.Status)
    if status == SUCCESS:
        return SendOutcome(status, "success")
    meaning = _meaning(status)
    if status in _WARNINGS or 0xB000 <= status <= 0xBFFF:
        return SendOutcome(status, meaning)
    message = f"{node.name} answered C-STORE with {status:04X} ({meaning})."
    if status in _TRANSIENT or 0xA700 <= status <= 0xA7FF:
        raise PeerUnavailable(message, status=status)
    raise PeerRefused(message, status=status)


def _meaning(status: int) -> str:
    category, words = STORAGE_SERVICE_CLASS_STATUS.get(status) or GENERAL_STATUS.get(status) or ("Failure", "")
    return f"{category}: {words}" if words else category
