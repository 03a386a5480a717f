"""A listener recorded while modalities send to it: its system calls, what it answered, what its index heard of."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.proxy import CuttingProxy
from tests.chaos.senders import by_pynetdicom
from tests.chaos.stand import REPOSITORY
from tests.chaos.studies import Kind, Ledger, Made, Studies
from tests.chaos.syscalls import UNKNOWN, Call, Recorder, path_of, text_of
from tests.peers import PEER_TIMEOUT_S, free_port, listens, wait_until

_SENDS = frozenset(("sendto", "sendmsg", "write", "writev"))
_FILES = re.compile(rb"objects/[0-9-]+/[0-9]+/[0-9a-f]+\.dcm")
# Of each thread's syncs every so manieth is the end of its process. The listener's start needs fewer.
_KILL_AT = 9
_PATIENCE_S = 120.0
_P_DATA = 4  # PS3.8 section 9.3.5
_C_STORE_RSP = 0x8001  # PS3.7 section 9.3.1.2


@dataclass(frozen=True)
class Recording:
    """What a listener did while it was sent to."""

    root: Path  # of all that it did to files; durable and empty when it began
    calls: list[Call]
    made: dict[str, Made]  # what was sent, by SOP Instance UID
    answers: list[tuple[int, str, int]]  # C-STORE responses: the moment they were given away, SOP Instance UID, status
    notes: list[tuple[int, str]]  # the moment when the index could first hear of a file, and its key
    at: dt.datetime  # when it was

    @property
    def spool(self) -> Path:
        """The spool's folder, below the root."""
        return self.root / "spool"

    def clock(self) -> dt.datetime:
        """The time when the power comes back: soon."""
        return self.at + dt.timedelta(minutes=5)


def record(folder: Path, database_url: str, *, seed: int, studies: int = 3, killed: bool = False) -> Recording:
    """Let three modalities send to a recorded listener: images, objects sent twice, broken ones, a cut connection.

    Args:
        folder: for everything; made.
        database_url: of a migrated database.
        seed: of the objects.
        studies: that each modality sends.
        killed: its processes are killed, too, again and again, before a sync of a folder or a file; and what comes
            together goes to different folders, as around a full hour.
    """
    root = folder.resolve() / "disk"
    root.mkdir(parents=True)
    port, ledger = free_port(), Ledger()
    command = [sys.executable, "-m", "tests.integration.listener_processes", database_url, str(root / "spool")]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    command += [str(port), "2", *(["24"] if killed else [])]
    inject = [f"fsync,fdatasync:signal=SIGKILL:when={_KILL_AT}+{_KILL_AT}"] if killed else []
    recorder = Recorder(command, folder / "calls", folder / "listener.log", env=env, inject=inject)
    try:
        wait_until(lambda: listens(port), what="the recorded listener")
        _send(folder / "sent", ledger, port, seed, studies)
        wait_until(lambda: not list((root / "spool" / "incoming").iterdir()), what="the end of the writing")
    finally:
        with suppress(IndexError, ProcessLookupError):  # it ended by itself, which is a failure of its own
            os.kill(recorder.program, signal.SIGTERM)
        recorder.process.wait(PEER_TIMEOUT_S)
    calls = recorder.calls()
    answers = list(_answers(calls))
    told = {sop_uid for _, sop_uid, status in answers if status == 0}
    if not told >= ledger.acknowledged or (told != ledger.acknowledged and not killed):
        raise AssertionError(f"{len(told)} successes recorded, {len(ledger.acknowledged)} heard by the senders")
    return Recording(root, calls, ledger.made, answers, list(_notes(calls)), dt.datetime.now(dt.UTC))


def _send(folder: Path, ledger: Ledger, port: int, seed: int, studies: int) -> None:
    def modality(number: int) -> None:
        made = Studies(folder / str(number), ledger, seed + number)
        for _ in range(studies):
            sent = made.study(images=4, reports=1, broken=number == 0)
            again = [one for one in sent if one.kind is Kind.IMAGE][:2]
            for objects in (sent, again):
                _deliver(ledger, objects, port, f"MOD{number}")

    threads = [threading.Thread(target=modality, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    cut = Studies(folder / "cut", ledger, seed + 99).study(images=3)
    proxy = CuttingProxy(port, lambda: 60_000, seed)
    _note(ledger, cut, by_pynetdicom(cut, proxy.port, "CUT"))
    proxy.stop()
    for thread in threads:
        thread.join()


def _deliver(ledger: Ledger, objects: list[Made], port: int, calling: str) -> None:
    """Send once, and then what has no final answer until it has."""
    left, end = objects, time.monotonic() + _PATIENCE_S
    while left and time.monotonic() < end:
        _note(ledger, left, by_pynetdicom(left, port, calling))
        left = [one for one in left if not ledger.settled(one.sop_uid)]
        if left:
            time.sleep(0.3)


def _note(ledger: Ledger, sent: list[Made], answers: dict[str, int]) -> None:
    for one in sent:
        ledger.answered(one.sop_uid, answers.get(one.sop_uid))


def _answers(calls: Iterable[Call]) -> Iterator[tuple[int, str, int]]:
    """The C-STORE responses among what was said over sockets, by the call that gave away their last byte."""
    streams: dict[str, bytes] = {}
    for call in sorted(calls, key=lambda call: call.enter):
        if call.name not in _SENDS or not path_of(call.arguments[0])[0].startswith(("socket:", "TCP")):
            continue
        stream = path_of(call.arguments[0])[0]
        given = text_of(",".join(call.arguments[1:]))
        # What was under way when its process died may have got through.
        said = streams.get(stream, b"") + (given if call.result == UNKNOWN else given[: call.value])
        while len(said) >= 6 and len(said) >= 6 + int.from_bytes(said[2:6], "big"):
            length = int.from_bytes(said[2:6], "big")
            kind, body, said = said[0], said[6 : 6 + length], said[6 + length :]
            if kind == _P_DATA:
                values = dict(_elements(body[6:]))
                if values.get(0x0100) == struct.pack("<H", _C_STORE_RSP):
                    uid = values[0x1000].rstrip(b"\0").decode()
                    yield call.enter, uid, int.from_bytes(values[0x0900], "little")
        streams[stream] = said


def _elements(command: bytes) -> Iterator[tuple[int, bytes]]:
    """Elements of a command set (PS3.7 section 6.3.1), by their number."""
    while len(command) >= 8:
        _, number, length = struct.unpack("<HHL", command[:8])
        yield number, command[8 : 8 + length]
        command = command[8 + length :]


def _notes(calls: Iterable[Call]) -> Iterator[tuple[int, str]]:
    """The files that pipes were told of, in their order."""
    for call in sorted(calls, key=lambda call: call.enter):
        if call.name in _SENDS and path_of(call.arguments[0])[0].startswith(("pipe:", "socket:")):
            for key in _FILES.findall(text_of(",".join(call.arguments[1:]))):
                yield call.enter, key.decode()
