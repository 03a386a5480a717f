"""The listener as several processes: whichever of them is killed, what was acknowledged is there, and work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import func, select

from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from tests.peers import HOST, echoscu, free_port, listens, wait_until
from tests.unit.dicom_listener.objects import MR_IMAGE, as_file, image


class Running:
    """The processes of a listener."""

    def __init__(self, database: Database, spool: Spool, port: int, processes: int = 2) -> None:
        self.port = port
        command = [sys.executable, "-m", "tests.integration.listener_processes", database.url]
        self.parent = subprocess.Popen([*command, str(spool.root), str(port), str(processes)])
        self.processes = processes
        wait_until(lambda: listens(port), what="the listener")
        wait_until(lambda: len(self.children()) == processes + 1, what="its processes")

    def children(self) -> list[int]:
        """The pids of its children, in the order of their start: the index, then the acceptors."""
        found = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children").read_text().split()
        return sorted(map(int, found))

    def stop(self) -> int:
        """End it in good order; its exit status."""
        self.parent.send_signal(signal.SIGTERM)
        return self.parent.wait(90)

    def associate(self) -> Association:
        """An association for MR images."""
        ae = AE(ae_title="CT1")
        ae.add_requested_context(MR_IMAGE, ExplicitVRLittleEndian)
        assoc = ae.associate(HOST, self.port, ae_title="WETREAD")
        assert assoc.is_established
        return assoc


Start = Callable[..., Running]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def start(database: Database, spool: Spool) -> Iterator[Start]:
    """Starts listeners, and sees that nothing of them is left after the test."""
    started: list[Running] = []

    def start_one(port: int | None = None, processes: int = 2) -> Running:
        started.append(Running(database, spool, port or free_port(), processes))
        return started[-1]

    yield start_one
    for running in started:
        if running.parent.poll() is None:
            running.parent.terminate()
            running.parent.wait(90)


def _store(assoc: Association) -> int:
    ds = image()
    as_file(ds)
    return int(assoc.send_c_store(ds).Status)


def _count(database: Database, table: type[tables.Base]) -> int:
    with database.session() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def _all_indexed(database: Database, spool: Spool, count: int) -> None:
    wait_until(lambda: _count(database, tables.Instance) == count, what=f"{count} rows")
    assert len(list(spool.object_keys())) == count


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_associations_spread_over_processes_and_all_is_indexed(start: Start, database: Database, spool: Spool) -> None:
    """Several acceptors take from one port, one index hears of all, and a stop leaves neither process nor lease."""
    running = start(processes=3)
    children = running.children()
    assocs = [running.associate() for _ in range(6)]
    assert [_store(assoc) for assoc in assocs for _ in range(3)] == [0] * 18
    wait_until(lambda: _count(database, tables.AssociationLease) == 6, what="a lease for each")
    for assoc in assocs:
        assoc.release()
    _all_indexed(database, spool, 18)
    wait_until(lambda: _count(database, tables.AssociationLease) == 0, what="the end of the leases")
    assert running.stop() == 0
    assert all(map(_is_gone, children))
    assert not listens(running.port)


def test_open_association_may_finish_when_the_listener_stops(start: Start, database: Database, spool: Spool) -> None:
    """SIGTERM closes the port at once; what is open goes on for its grace, and is indexed before the end."""
    running = start()
    assoc = running.associate()
    running.parent.send_signal(signal.SIGTERM)
    wait_until(lambda: not listens(running.port), what="the closed port")
    assert _store(assoc) == 0
    assoc.release()
    assert running.parent.wait(90) == 0
    _all_indexed(database, spool, 1)


def test_killed_acceptor_is_started_again(start: Start, database: Database, spool: Spool) -> None:
    """The associations of another one go on, those of the killed one end in index and trail, new ones are accepted."""
    running = start()
    assocs = [running.associate() for _ in range(4)]
    assert [_store(assoc) for assoc in assocs] == [0] * 4
    wait_until(lambda: _count(database, tables.AssociationLease) == 4, what="a lease for each")
    _, first, _ = running.children()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: any(not assoc.is_established for assoc in assocs), what="the end of some")
    wait_until(lambda: len(running.children()) == 3 and first not in running.children(), what="another acceptor")
    living = [assoc for assoc in assocs if assoc.is_established]
    assert 0 < len(living) < 4
    assert [_store(assoc) for assoc in living] == [0] * len(living)
    wait_until(lambda: _count(database, tables.AssociationLease) == len(living), what="the end of their leases")
    for assoc in living:
        assoc.release()
    for _ in range(4):
        assert echoscu(HOST, running.port).status == 0
    _all_indexed(database, spool, 4 + len(living))
    with database.session() as session:
        told = [row.detail or {} for row in session.execute(select(tables.AuditEvent)).scalars()]
    assert sum("the acceptor died" in str(detail) for detail in told) == 4 - len(living)


def test_killed_index_is_started_again_and_answers_do_not_wait_for_it(
    start: Start, database: Database, spool: Spool
) -> None:
    """Objects are acknowledged while there is no index; the next one finds them, and the open associations."""
    running = start()
    assoc = running.associate()
    assert _store(assoc) == 0
    wait_until(lambda: _count(database, tables.AssociationLease) == 1, what="the lease")
    index = running.children()[0]
    os.kill(index, signal.SIGKILL)
    began = time.monotonic()
    assert [_store(assoc) for _ in range(20)] == [0] * 20
    assert time.monotonic() - began < 60
    wait_until(lambda: len(running.children()) == 3 and index not in running.children(), what="another index")
    _all_indexed(database, spool, 21)
    assert _store(assoc) == 0
    # Longer than a lease: it is the new index that renews it.
    time.sleep(17)
    assert _count(database, tables.AssociationLease) == 1
    assoc.release()
    wait_until(lambda: _count(database, tables.AssociationLease) == 0, what="the end of the lease")
    _all_indexed(database, spool, 22)


def test_killed_parent_takes_all_with_it_and_the_next_one_gets_the_port(
    start: Start, database: Database, spool: Spool
) -> None:
    """No acceptor goes on unwatched, and a listener that is started at once waits for the port."""
    running = start()
    assoc = running.associate()
    assert _store(assoc) == 0
    children = running.children()
    running.parent.kill()
    running.parent.wait()
    following = start(running.port)
    wait_until(lambda: all(map(_is_gone, children)), what="the end of all")
    assert _store(following.associate()) == 0
    _all_indexed(database, spool, 2)
