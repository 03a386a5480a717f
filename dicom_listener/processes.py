"""The listener as several processes: acceptors on the same sockets, and one that keeps the index.

The parent forks them, starts again whoever dies, and does nothing else: it has one thread that matters and no
connection to the database, so that it can fork at any time. It keeps the reading end of every acceptor's pipe, so that
an index that is started again reads on where the former one stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import errno
import gc
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
from sqlalchemy.orm import configure_mappers

from dicom_listener.acceptor import Acceptor, listening_sockets
from dicom_listener.admission import Admission
from dicom_listener.faults import where
from dicom_listener.index_keeper import IndexKeeper
from dicom_listener.note_pipe import NoteReader, NoteWriter, make_pipe
from dicom_listener.settings import ListenerSettings
from dicom_listener.shared_counts import SharedCounts
from dicom_listener.spool import Spool
from fhir_records.database import Database

if TYPE_CHECKING:
    from dicom_listener.commitment import TakeReport

log = structlog.get_logger(__name__)

_MOST_PROCESSES: Final = 4
_TICK_S: Final = 0.1  # between the parent's looks at its children
_BIND_S: Final = 10.0  # that the port may still be held by the listener before
_YOUNG_S: Final = 5.0  # who dies younger is started again after …
_PAUSE_S: Final = 1.0
_INDEX_NICE: Final = 10  # the index works behind the answers
_INDEX_STOP_S: Final = 10.0
_ORPHAN_GRACE_S: Final = 3.0  # for open associations where the parent was killed: the next one waits for the port
_TELL_OPEN_S: Final = 5.0  # between two accounts of what is open; leases run three times as long
_GATHER_S: Final = 0.02  # while notes gather before they are read
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)

Socket = socket.socket | None


def acceptors_for(settings: ListenerSettings) -> int:
    """How many processes accept."""
    return settings.processes or max(2, min(_MOST_PROCESSES, len(os.sched_getaffinity(0))))


@dataclass(slots=True)
class _Acceptor:
    """An acceptor's process."""

    number: int
    pid: int = 0  # 0: it does not run
    pipe: int = -1  # its notes, to be read
    started_at: float = 0.0  # monotonic
    start_at: float = 0.0  # monotonic; not before


class ListenerProcesses:
    """The listener's processes, kept running by the one that calls `run`.

    Args:
        settings: everything about the listener.
        spool: where objects go.
        connect: makes the index's database, in the index's process.
        clock: the time now, in UTC.
        reports: makes what writes reports of storage commitment down, in the acceptor that the first one comes to.

    Raises:
        SettingsError: the TLS files cannot be used.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        spool: Spool,
        connect: Callable[[], Database],
        *,
        clock: Callable[[], dt.datetime],
        reports: Callable[[], TakeReport] | None = None,
    ) -> None:
        self._settings = settings
        self._reports = reports
        self._spool = spool
        self._connect = connect
        self._clock = clock
        number = acceptors_for(settings)
        self._counts = SharedCounts(number, settings.max_associations)
        Admission(settings)  # what is wrong with TLS must be heard here, not in every child
        self._acceptors = [_Acceptor(number) for number in range(number)]
        self._sockets: tuple[Socket, Socket] = (None, None)
        self._index = 0  # pid
        self._index_started_at = self._index_start_at = 0.0
        # To the index: the pipes of acceptors that were started after it.
        self._to_index: Socket = None
        self._parent = os.getpid()

    def run(self, stop: threading.Event, grace: float) -> None:
        """Listen until ``stop`` is set; open associations then have ``grace`` seconds to finish.

        Raises:
            OSError: a port is taken, or the spool cannot be written.
        """
        self._spool.prepare()
        self._sockets = _bound(self._settings, stop)
        plain, tls = self._sockets
        log.info(
            "listening for associations",
            ae_title=self._settings.ae_title,
            port=plain.getsockname()[1] if plain else None,
            tls_port=tls.getsockname()[1] if tls else None,
            processes=len(self._acceptors),
        )
        # What every index would do at its start is done once, and its memory shared.
        configure_mappers()
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):  # no glibc
            ctypes.CDLL(None).malloc_trim(0)  # what imports needed and left
        gc.freeze()  # pages that the collector does not touch stay shared
        try:
            while not stop.is_set():
                self._look(grace)
                stop.wait(_TICK_S)
        finally:
            self._end(grace)

    # --- the parent ---------------------------------------------------------------------------------------------------

    def _look(self, grace: float) -> None:
        """Take note of who died, and start who does not run."""
        now = time.monotonic()
        if self._index and _is_over(self._index):
            log.error("the index's process died and is started again")
            self._index_start_at = now + _pause(self._index_started_at, now)
            self._index = 0
        if not self._index and now >= self._index_start_at:
            self._start_index()
        for acceptor in self._acceptors:
            if acceptor.pid and _is_over(acceptor.pid):
                log.error("an acceptor died and is started again", acceptor=acceptor.number)
                self._counts.clear(acceptor.number)
                acceptor.start_at = now + _pause(acceptor.started_at, now)
                acceptor.pid = 0
            if not acceptor.pid and now >= acceptor.start_at:
                self._start_acceptor(acceptor, grace)

    def _start_index(self) -> None:
        if self._to_index is not None:
            self._to_index.close()
        self._to_index, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._to_index.setblocking(False)
        self._index_started_at = time.monotonic()
        pid = os.fork()
        if not pid:
            self._be("index", lambda: self._keep_index(its_end))
        its_end.close()
        self._index = pid

    def _start_acceptor(self, acceptor: _Acceptor, grace: float) -> None:
        reading, writing = make_pipe()
        # What the former one told is read to its end by the index, which has a descriptor of its own.
        former, acceptor.pipe = acceptor.pipe, reading
        if former >= 0:
            os.close(former)
        acceptor.started_at = time.monotonic()
        pid = os.fork()
        if not pid:
            self._be(f"acceptor-{acceptor.number}", lambda: self._accept(acceptor.number, writing, grace))
        # The acceptor alone can write: its end is the end of the pipe.
        os.close(writing)
        acceptor.pid = pid
        if self._to_index is not None:
            with contextlib.suppress(OSError):  # the index died; the next one inherits the pipe
                socket.send_fds(self._to_index, [b"acceptor"], [reading])

    def _end(self, grace: float) -> None:
        for listening in self._sockets:
            if listening is not None:
                listening.close()
        _end_all([acceptor.pid for acceptor in self._acceptors if acceptor.pid], grace + 10.0)
        # The index ends when it has read what they told.
        _end_all([self._index] if self._index else [], _INDEX_STOP_S + 10.0)
        log.info("stopped listening")

    # --- the children -------------------------------------------------------------------------------------------------

    def _be(self, name: str, work: Callable[[], None]) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
            _follow(self._parent)
            structlog.contextvars.bind_contextvars(process=name)
            work()
            status = 0
        except BaseException as error:  # boundary: a child that fails must not go on as a second parent
            log.error("a process of the listener failed", process=name, error=where(error))
        finally:
            os._exit(status)

    def _accept(self, number: int, pipe: int, grace: float) -> None:
        stop = _told_to_stop()
        for other in self._acceptors:
            if other.pipe >= 0:
                os.close(other.pipe)
        if self._to_index is not None:
            self._to_index.close()
        writer = NoteWriter(pipe)
        gate = Admission(self._settings, self._counts.of(number))
        acceptor = Acceptor(self._settings, self._spool, writer, gate, clock=self._clock, reports=self._reports)
        acceptor.serve(*self._sockets)
        while not stop.wait(_TELL_OPEN_S):
            writer.tell_open()
        acceptor.stop(grace if os.getppid() == self._parent else min(grace, _ORPHAN_GRACE_S))

    def _keep_index(self, control: socket.socket) -> None:
        stop = _told_to_stop()
        with contextlib.suppress(OSError):
            os.nice(_INDEX_NICE)
        for listening in self._sockets:
            if listening is not None:
                listening.close()
        if self._to_index is not None:
            self._to_index.close()
        keeper = IndexKeeper(self._settings, self._connect(), self._spool, clock=self._clock)
        keeper.start()
        inbox = _Inbox(keeper, self._clock)
        for acceptor in self._acceptors:
            if acceptor.pipe >= 0:
                inbox.add(acceptor.pipe)
        inbox.read_until(stop, control)
        keeper.stop(_INDEX_STOP_S)


class _Inbox:
    """All pipes, read by one thread."""

    def __init__(self, keeper: IndexKeeper, clock: Callable[[], dt.datetime]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._selector = selectors.DefaultSelector()

    def add(self, pipe: int) -> None:
        """Read this pipe, too, until its acceptor is gone."""
        reader = NoteReader(pipe, self._keeper, self._keeper.look, self._clock)
        self._selector.register(pipe, selectors.EVENT_READ, reader)

    def read_until(self, stop: threading.Event, control: socket.socket) -> None:
        """Read until ``stop`` is set and no acceptor is left; new pipes come over ``control``."""
        control.setblocking(False)
        self._selector.register(control, selectors.EVENT_READ)
        while not stop.is_set() or any(key.data for key in self._selector.get_map().values()):
            ready = self._selector.select(_TICK_S)
            for key, _ in ready:
                if key.data is None:
                    self._adopt(control)
                elif not key.data.read():
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
            if ready:
                # Woken for each note, the index would take the time from the acceptors that they need to tell it.
                time.sleep(_GATHER_S)

    def _adopt(self, control: socket.socket) -> None:
        try:
            told, pipes, _, _ = socket.recv_fds(control, 16, 1)
        except BlockingIOError:
            return
        for pipe in pipes:
            self.add(pipe)
        if not told:
            # The parent is gone: so will be the acceptors.
            self._selector.unregister(control)


def _bound(settings: ListenerSettings, stop: threading.Event) -> tuple[Socket, Socket]:
    """The listening sockets; a port that is taken is waited for, since a killed listener's acceptors leave it soon."""
    deadline = time.monotonic() + _BIND_S
    while True:
        try:
            return listening_sockets(settings)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline or stop.is_set():
                raise
        stop.wait(_TICK_S)


def _pause(started_at: float, now: float) -> float:
    return _PAUSE_S if now - started_at < _YOUNG_S else 0.0


def _told_to_stop() -> threading.Event:
    """Set when the process is sent SIGTERM."""
    stop = threading.Event()
    # A thread of its own: setting takes a lock that the interrupted code may hold.
    signal.signal(signal.SIGTERM, lambda _signum, _frame: threading.Thread(target=stop.set).start())
    return stop


def _follow(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies: acceptors that nobody watches would hold the port."""
    with contextlib.suppress(AttributeError, OSError):  # no Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel had been asked
        os._exit(1)


def _is_over(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _end_all(pids: list[int], seconds: float) -> None:
    """SIGTERM, and SIGKILL for whoever needs longer than this."""
    running = list(pids)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while running := [pid for pid in running if not _is_over(pid)]:
        if time.monotonic() > deadline:
            for pid in running:
                log.error("a process of the listener did not end in time and is killed", pid=pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            deadline += 5.0
        time.sleep(0.02)
