"""Senders that do what modalities do: send until each object has its answer, and never again after success."""

from __future__ import annotations

import logging
import os
import queue
import random
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pynetdicom import AE, evt
from pynetdicom.association import Association

from dicom_listener.checkpoint import set_checkpoint
from tests.chaos.studies import Ledger, Made, Studies
from tests.peers import HOST, need

# DCMTK's storescu says in words what was answered.
_ANSWERS = re.compile(r"Sending file: (\S+)\n(?:(?!.*Sending file).*\n)*?.*Store Response \((.+)\)$", re.MULTILINE)
_WORDS = {
    "Success": 0x0000,
    "Refused: OutOfResources": 0xA700,
    "Error: DataSetDoesNotMatchSOPClass": 0xA900,
    "Error: CannotUnderstand": 0xC000,
}
_PAUSE_S = 0.2
# What it says of each broken connection is what these runs are made of.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
_SEND_LIMIT_S = 60.0


def by_storescu(made: Sequence[Made], port: int, calling: str) -> dict[str, int]:
    """Send over one association with DCMTK's `storescu`; the status of each answer, by SOP Instance UID."""
    command = [need("storescu"), "-v", "--no-halt", "--timeout", "5", "--acse-timeout", "10", "--dimse-timeout", "15"]
    command += ["--aetitle", calling, "--call", "WETREAD", HOST, str(port), *(str(one.path) for one in made)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=_SEND_LIMIT_S,
        check=False,
    )
    uids = {str(one.path): one.sop_uid for one in made}
    return {uids[path]: _status(words) for path, words in _ANSWERS.findall(done.stdout.decode("utf-8", "replace"))}


def _status(words: str) -> int:
    if words in _WORDS:
        return _WORDS[words]
    number = re.search(r"0x([0-9a-fA-F]+)", words)
    return int(number.group(1), 16) if number else 0x0110


def by_pynetdicom(made: Sequence[Made], port: int, calling: str) -> dict[str, int]:
    """The same with pynetdicom, whose PDUs are cut otherwise."""
    ae = AE(ae_title=calling)
    ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 5, 10, 15, 15
    for sop_class in ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.11"):
        ae.add_requested_context(sop_class, "1.2.840.10008.1.2.1")
    assoc = ae.associate(HOST, port, ae_title="WETREAD", evt_handlers=[(evt.EVT_CONN_OPEN, set_checkpoint)])
    answers: dict[str, int] = {}
    try:
        for one in made:
            status = _store(assoc, one)
            if status is None:
                break
            answers[one.sop_uid] = status
    finally:
        if assoc.is_established:
            assoc.release()
    return answers


def _store(assoc: Association, one: Made) -> int | None:
    if not assoc.is_established:
        return None
    try:
        answer = assoc.send_c_store(one.path)
    except (RuntimeError, ValueError):  # the association ended meanwhile
        return None
    return int(answer.Status) if "Status" in answer else None


WAYS = {"storescu": by_storescu, "pynetdicom": by_pynetdicom}


@dataclass(frozen=True)
class Sender:
    """A modality."""

    calling: str  # its AE title
    way: str  # a name of `WAYS`
    port: int  # of the listener, or of a proxy before it


@dataclass
class Ward:
    """Several senders that send what `studies` makes, until they are told to stop, and then what is left.

    No study is started beyond ``most_waiting`` batches that still want their answers, so a run that makes no progress
    does not pile objects up.
    """

    senders: Sequence[Sender]
    studies: Studies
    ledger: Ledger
    seed: int = 0
    pause_s: float = 0.3  # between batches of a sender
    sent_batches: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _shared: queue.Queue[list[Made]] = field(default_factory=queue.Queue)  # halves for another sender
    _making: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Let all send."""
        for number, sender in enumerate(self.senders):
            thread = threading.Thread(target=self._work, args=(sender, self.seed + number), daemon=True)
            thread.start()
            self._threads.append(thread)

    def finish(self, seconds: float) -> bool:
        """Start no new study; True: everything had its answer within ``seconds``."""
        self._stop.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, sender: Sender, seed: int) -> None:
        chance = random.Random(seed)
        known: list[Made] = []  # what this sender sent, for late images and for sending again
        while True:
            made = self._next(chance, known)
            if made is None:
                return
            self._deliver(sender, made)
            known += made
            self.sent_batches += 1
            if known and chance.random() < 0.2:
                again = chance.sample(known, min(3, len(known)))
                self._note(again, WAYS[sender.way](again, sender.port, sender.calling))
            if not self._stop.is_set():
                time.sleep(chance.random() * 2 * self.pause_s)

    def _next(self, chance: random.Random, known: list[Made]) -> list[Made] | None:
        try:
            return self._shared.get_nowait()
        except queue.Empty:
            if self._stop.is_set():
                return None
        with self._making:
            if known and chance.random() < 0.2:
                return self.studies.late(chance.choice(known).study_uid)
            first, *others = self.studies.batch()
        for other in others:
            self._shared.put(other)
        return first

    def _deliver(self, sender: Sender, made: list[Made]) -> None:
        left = made
        while left:
            self._note(left, WAYS[sender.way](left, sender.port, sender.calling))
            left = [one for one in left if not self.ledger.settled(one.sop_uid)]
            if left:
                time.sleep(_PAUSE_S)

    def _note(self, sent: list[Made], answers: dict[str, int]) -> None:
        for one in sent:
            self.ledger.answered(one.sop_uid, answers.get(one.sop_uid))
