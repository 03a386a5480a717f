"""A PACS that refuses, stalls, aborts, answers late and lies as chance has it, and keeps a journal of what it did."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_role, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.events import Event

from dicom_listener.commitment import ALL_COMMITTED, PUSH_MODEL, PUSH_MODEL_INSTANCE, SOME_FAILED
from dicom_listener.settings import Node
from tests.peers import free_port

CLASSES = ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.59")
TIMEOUT_S = 0.6  # of who sends to it

# What it does with a C-STORE, and how often; after a storm it is honest.
STORE_FAULTS: Mapping[str, int] = {
    "kept": 40,  # kept, success
    "kept with a warning": 4,  # kept, status B000
    "late": 4,  # kept, and the answer comes just in time
    "full": 6,  # A700
    "silent release": 4,  # kept, success, and no answer to the release
    "duplicate": 4,  # what it has already is answered with 0111; else kept
    "refused": 1,  # C000
    "abort before": 8,  # not kept, and no answer
    "abort after": 8,  # kept, and no answer
    "stall": 4,  # kept, and the answer comes when nobody waits for it any more
    "lie": 6,  # not kept, success
    "forgotten": 4,  # kept, success, and lost later
}
COMMIT_FAULTS: Mapping[str, int] = {
    "same": 20,  # the truth, on the same association
    "new": 20,  # the truth, on one of its own
    "never": 8,
    "refuse": 5,
    "abort": 4,
    "twice": 8,  # the truth, and then the opposite
    "other": 5,  # about an object that nobody asked about
    "stranger": 5,  # of a transaction that nobody asked for
    "someone else": 5,  # the truth, but from another node
    "flattery": 5,  # that all is kept, whatever is
    "again": 5,  # the truth, and once more
    "early": 5,  # the truth, on the same association, before the request is answered
    "early new": 5,  # the same on one of its own
    "in part": 5,  # the truth, and that something else failed
    "both": 3,  # kept and failed in one report
}


_KEEPING = ("kept", "kept with a warning", "late", "abort after", "stall", "forgotten", "silent release")
_ANSWERS = {"full": 0xA700, "disk full": 0xA701, "refused": 0xC000, "duplicate": 0x0111}


@dataclass(slots=True)
class Pacs:
    """The peer: what it holds, and what it said."""

    node: Node
    chance: random.Random
    honest: bool = False
    full: bool = False  # its disk: A701 to everything
    report_to: int = 0  # port of the listener that takes reports
    held: dict[str, str] = field(default_factory=dict)  # SOP Instance UID to SHA-256 of the data set
    received: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # all SHA-256, in order
    accepted: Counter[str] = field(default_factory=Counter)  # answers of success or warning that left in time
    failed: Counter[str] = field(default_factory=Counter)  # answers of failure
    promised: set[str] = field(default_factory=set)  # UIDs that a report of its own said are kept
    denied: Counter[str] = field(default_factory=Counter)  # … are not
    faults: Counter[str] = field(default_factory=Counter)
    order: dict[str, int] = field(default_factory=dict)  # UID to when it was last kept, counted through all objects
    lock: threading.Lock = field(default_factory=threading.Lock)
    reports: list[threading.Thread] = field(default_factory=list)

    def store(self, event: Event) -> int:
        """The answer to a C-STORE."""
        uid = str(event.request.AffectedSOPInstanceUID)
        sha256 = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
        with self.lock:
            fault = self._draw(STORE_FAULTS, "kept")
            self.received[uid].append(sha256)
            if fault == "duplicate" and uid not in self.held:
                fault = "kept"
            if fault in _KEEPING:
                self.held[uid] = sha256
                self.order[uid] = self.faults.total()
            if fault == "forgotten":
                del self.held[uid]
        if fault.startswith("abort"):
            event.assoc.abort()
            return 0
        if fault == "silent release":
            event.assoc.acse.send_release = lambda is_response=False: time.sleep(2.5 * TIMEOUT_S)
        time.sleep({"late": TIMEOUT_S / 3, "stall": 2.5 * TIMEOUT_S}.get(fault, 0))
        with self.lock:
            if fault in _ANSWERS:
                self.failed[uid] += 1
                if fault == "duplicate":
                    self.accepted[uid] += 1  # it says that it has it
                return _ANSWERS[fault]
            if fault != "stall":
                self.accepted[uid] += 1
        return 0xB000 if fault == "kept with a warning" else 0

    def commit(self, event: Event) -> tuple[int, None]:
        """The answer to a request for storage commitment; its report follows, if it does."""
        request = event.action_information
        with self.lock:
            fault = self._draw(COMMIT_FAULTS, "same")
        if fault == "refuse":
            return 0x0110, None
        if fault == "abort":
            event.assoc.abort()
            return 0, None
        if fault == "early":
            self._send_early(request, event)
            return 0, None
        if fault == "early new":
            self._send(request, fault, calling=self.node.ae_title)
            return 0, None
        thread = threading.Thread(target=self._report, args=(fault, request, event.assoc), daemon=True)
        self.reports.append(thread)
        thread.start()
        return 0, None

    def _draw(self, faults: Mapping[str, int], honest: str) -> str:
        (fault,) = [honest] if self.honest else self.chance.choices([*faults], [*faults.values()])
        if self.full and faults is STORE_FAULTS:
            fault = "disk full"
        self.faults[fault] += 1
        return fault

    def _report(self, fault: str, request: Dataset, assoc: object) -> None:
        time.sleep(0.02)
        with suppress(RuntimeError, ValueError, AttributeError):  # the association may be over
            if fault in ("same", "other", "stranger", "in part", "both"):
                event_type, ds = self._event(request, fault)
                assoc.send_n_event_report(ds, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)  # type: ignore[attr-defined]
            elif fault in ("new", "flattery", "someone else", "twice", "again"):
                self._send(request, fault, calling="OTHER" if fault == "someone else" else self.node.ae_title)
            if fault in ("twice", "again"):
                self._send(request, "opposite" if fault == "twice" else fault, calling=self.node.ae_title)

    def _send_early(self, request: Dataset, event: Event) -> None:
        """Report without waiting for an answer: the request itself is not answered yet."""
        event_type, ds = self._event(request, "early")
        report = N_EVENT_REPORT()
        report.MessageID = 77
        report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = PUSH_MODEL, PUSH_MODEL_INSTANCE
        report.EventTypeID = event_type
        report.EventInformation = BytesIO(encode(ds, *_little_endian(event)) or b"")
        event.assoc.dimse.send_msg(report, event.context.context_id)

    def _send(self, request: Dataset, fault: str, *, calling: str) -> None:
        """Report on an association of its own, as the SCP of the service class."""
        ae = AE(ae_title=calling)
        ae.add_requested_context(PUSH_MODEL)
        roles = [build_role(PUSH_MODEL, scp_role=True)]
        assoc = ae.associate("127.0.0.1", self.report_to, ae_title="WETREAD", ext_neg=roles)
        if assoc.is_established:
            event_type, ds = self._event(request, fault)
            assoc.send_n_event_report(ds, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            assoc.release()

    def _event(self, request: Dataset, fault: str) -> tuple[int, Dataset]:
        ds = Dataset()
        ds.TransactionUID = "2.25.99" if fault == "stranger" else request.TransactionUID
        (asked,) = request.ReferencedSOPSequence
        item = Dataset()
        item.ReferencedSOPClassUID = asked.ReferencedSOPClassUID
        uid = str(asked.ReferencedSOPInstanceUID)
        item.ReferencedSOPInstanceUID = "2.25.98" if fault == "other" else uid
        with self.lock:
            there = (uid in self.held) != (fault == "opposite") or fault == "flattery"
            counts = fault not in ("other", "stranger", "someone else", "opposite")
            if counts and (there or fault == "both"):
                self.promised.add(uid)
            if counts and (not there or fault == "both"):
                self.denied[uid] += 1
        if there or fault == "both":
            ds.ReferencedSOPSequence = [item]
        if there and fault not in ("in part", "both"):
            return ALL_COMMITTED, ds
        failed = deepcopy(item)
        failed.FailureReason = 0x0112
        ds.FailedSOPSequence = [failed]
        if fault == "in part":
            stranger = deepcopy(failed)
            stranger.ReferencedSOPInstanceUID = "2.25.97"
            ds.FailedSOPSequence = [stranger] if there else [failed, stranger]
        return SOME_FAILED, ds

    def finish_reports(self) -> None:
        """Wait for the reports that are on their way."""
        for thread in self.reports:
            thread.join(10)
        self.reports.clear()

    def find(self, study_uid: str, series_uid: str, sop_uid: str) -> bool:
        """Whether it lists the object."""
        del study_uid, series_uid
        with self.lock:
            return sop_uid in self.held

    def delete(self, sop_uid: str) -> None:
        """Delete an object; nothing happens where it is not there."""
        with self.lock:
            self.held.pop(sop_uid, None)


def _little_endian(event: Event) -> tuple[bool, bool]:
    syntax = event.context.transfer_syntax
    return syntax == ImplicitVRLittleEndian, True


@contextmanager
def pacs(name: str, chance: random.Random) -> Iterator[Pacs]:
    """The peer on a port of its own."""
    peer = Pacs(Node(name, name.upper(), "127.0.0.1", free_port(), timeout_s=TIMEOUT_S), chance)
    ae = AE(ae_title=name.upper())
    for kind in CLASSES:
        ae.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
    ae.add_supported_context(PUSH_MODEL)
    handlers = [(evt.EVT_C_STORE, peer.store), (evt.EVT_N_ACTION, peer.commit)]
    server = ae.start_server(("127.0.0.1", peer.node.port), block=False, evt_handlers=handlers)
    try:
        yield peer
    finally:
        server.shutdown()
