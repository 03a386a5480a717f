"""A storage SCP that keeps what it takes, or not, and answers requests for storage commitment as a test wants it to."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_role, evt
from pynetdicom.events import Event

from dicom_listener.acceptor import Acceptor, listening_sockets
from dicom_listener.admission import Admission
from dicom_listener.commitment import ALL_COMMITTED, PUSH_MODEL, PUSH_MODEL_INSTANCE, SOME_FAILED
from dicom_listener.handover import Note
from dicom_listener.settings import Caller, ListenerSettings, Node
from dicom_listener.spool import Spool
from tests.peers import free_port
from workflow.confirmation import TakeCommitmentReport

SR = "1.2.840.10008.5.1.4.1.1.88.34"
KO = "1.2.840.10008.5.1.4.1.1.88.59"


@dataclass(slots=True)
class Liar:
    """How the peer behaves, and what it saw."""

    node: Node
    store_status: int = 0
    fault: str = ""  # "abort", "stall": instead of an answer to C-STORE
    commit: str = "same"  # where the report goes: "same", "new", "never", "late", "refuse"
    verdict: str = "kept"  # "kept", "lost", "other" (about another object), "stranger" (of another transaction)
    report_to: int = 0  # port of the listener that takes reports
    stored: list[str] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # that its reports were answered with

    def report(self, request: Dataset) -> tuple[int, Dataset]:
        """The event that answers a request."""
        ds = Dataset()
        ds.TransactionUID = "2.25.99" if self.verdict == "stranger" else request.TransactionUID
        items = []
        for asked in request.ReferencedSOPSequence:
            item = Dataset()
            item.ReferencedSOPClassUID = asked.ReferencedSOPClassUID
            item.ReferencedSOPInstanceUID = "2.25.98" if self.verdict == "other" else asked.ReferencedSOPInstanceUID
            items.append(item)
        if self.verdict == "lost":
            for item in items:
                item.FailureReason = 0x0112
            ds.FailedSOPSequence = items
            return SOME_FAILED, ds
        ds.ReferencedSOPSequence = items
        return ALL_COMMITTED, ds

    def send_report(self, request: Dataset, *, calling: str = "") -> None:
        """Report on an association of its own, as the SCP of the service class."""
        ae = AE(ae_title=calling or self.node.ae_title)
        ae.add_requested_context(PUSH_MODEL)
        assoc = ae.associate(
            "127.0.0.1", self.report_to, ae_title="WETREAD", ext_neg=[build_role(PUSH_MODEL, scp_role=True)]
        )
        assert assoc.is_established
        event_type, information = self.report(request)
        status, _ = assoc.send_n_event_report(information, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.statuses.append(int(status.Status))
        assoc.release()


@contextmanager
def liar() -> Iterator[Liar]:
    """The peer on a port of its own."""
    peer = Liar(Node("pacs", "LIAR", "127.0.0.1", free_port(), timeout_s=2))

    def store(event: Event) -> int:
        if peer.fault == "abort":
            event.assoc.abort()
        elif peer.fault == "stall":
            time.sleep(4)
        peer.stored.append(str(event.request.AffectedSOPInstanceUID))
        return peer.store_status

    def action(event: Event) -> tuple[int, None]:
        request = event.action_information
        peer.asked.append(request)
        if peer.commit == "refuse":
            return 0x0110, None
        assoc = event.assoc

        def later() -> None:
            time.sleep(0.1)
            if peer.commit == "same":
                event_type, information = peer.report(request)
                status, _ = assoc.send_n_event_report(information, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
                peer.statuses.append(int(status.Status))
            elif peer.commit == "new":
                peer.send_report(request)

        threading.Thread(target=later, daemon=True).start()
        return 0, None

    ae = AE(ae_title="LIAR")
    for kind in (SR, KO):
        ae.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
    ae.add_supported_context(PUSH_MODEL)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, action)]
    server = ae.start_server(("127.0.0.1", peer.node.port), block=False, evt_handlers=handlers)
    try:
        yield peer
    finally:
        server.shutdown()


@contextmanager
def report_listener(
    take: TakeCommitmentReport, port: int = 0, callers: Sequence[str] = ("LIAR", "OTHER", "ORTHANC")
) -> Iterator[int]:
    """Our own acceptor, to which these may report, and nobody sends anything; gives its port."""
    reporters = tuple(Caller(ae_title, "127.0.0.1") for ae_title in callers)
    settings = ListenerSettings(
        host="127.0.0.1", port=port, callers=(Caller("NOBODY", "192.0.2.1"),), reporters=reporters, min_free_bytes=0
    )
    with tempfile.TemporaryDirectory() as folder:
        acceptor = Acceptor(settings, Spool(Path(folder)), _Deaf(), Admission(settings), reports=lambda: take)
        plain, _ = listening_sockets(settings)
        assert plain is not None
        acceptor.serve(plain, None)
        try:
            yield plain.getsockname()[1]
        finally:
            acceptor.stop(1)


class _Deaf:
    """A handover that nobody listens to."""

    def tell(self, note: Note) -> None:
        del note
