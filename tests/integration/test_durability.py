"""Nothing that was acknowledged is lost: processes killed, the database away, the disk full, cables cut, clocks wrong.

The long run is ``python -m tests.chaos --minutes 10``.
"""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import verdict
from tests.chaos.clock import may_set_clock
from tests.chaos.proxy import CuttingProxy
from tests.chaos.senders import by_pynetdicom, by_storescu
from tests.chaos.stand import Stand, standing
from tests.chaos.storm import storm
from tests.chaos.studies import Kind, Ledger, Made, Studies
from tests.peers import HOST, need, wait_until
from tests.raw_peer import RawPeer, big_object
from tests.small_disk import may_mount


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One `wetread listen` with all that belongs to it."""
    folder = tmp_path_factory.mktemp("stand")
    with standing(folder, disk_bytes=64 << 20 if may_mount() else 0, own_clock=may_set_clock()) as one:
        yield one


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    """What was sent to the stand by all tests of this file: what one sends must not be lost in the next."""
    return Ledger()


def images(folder: Path, ledger: Ledger, count: int, *, seed: int = 1) -> list[Made]:
    """So many images of one study, in the ledger."""
    made = Studies(folder / f"sent{seed}", ledger, seed)
    return made.study(images=count)


def note(ledger: Ledger, made: list[Made], answers: dict[str, int]) -> None:
    """Write down what was answered."""
    for one in made:
        ledger.answered(one.sop_uid, answers.get(one.sop_uid))


def come_to_rest(stand: Stand, ledger: Ledger) -> None:
    """Wait until everything that was acknowledged is in the index and no study is open."""
    wait_until(lambda: verdict.settled(stand, ledger), timeout_s=180, what="rest")


@pytest.mark.timeout(400)
def test_a_storm_loses_nothing(tmp_path: Path) -> None:
    """Dozens of faults of all kinds while four modalities send: each acknowledged object is there, once, and read."""
    need("storescu")
    account = storm(0, least_kills=24, folder=tmp_path)
    print("\n".join(account.lines()))
    assert account.faults == []
    assert account.acknowledged > 20
    assert account.kills >= 24
    assert account.cuts > 0
    assert len(account.did) >= 9


def test_a_connection_cut_anywhere_leaves_nothing_behind(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """Cut after any byte, in a PDU or between two, there is no half object, and sent again it is there once."""
    made = images(tmp_path, ledger, 6)
    size = sum(one.path.stat().st_size for one in made)
    chance = random.Random(4)
    # The first bytes are the association's; then anywhere, and close to an object's end.
    where = [1, 5, 60, 250, *(chance.randrange(300, size) for _ in range(8)), size - 40, size]
    for cut in where:
        proxy = CuttingProxy(stand.port, lambda cut=cut: cut)  # type: ignore[misc]
        try:
            note(ledger, made, by_storescu(made, proxy.port, "CUT"))
        finally:
            proxy.stop()
    left = [one for one in made if not ledger.settled(one.sop_uid)]
    assert left, "the last object never came through whole"
    note(ledger, left, by_storescu(left, stand.port, "CUT"))
    come_to_rest(stand, ledger)
    assert verdict.faults(stand, ledger) == []


@pytest.mark.skipif(not may_mount(), reason="SKIPPED LOUDLY: small disks need root")
def test_a_full_disk_refuses_and_an_emptied_one_takes(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """With so and so many bytes left every answer is Out of Resources or the truth; emptied, all is taken."""
    assert stand.disk is not None
    made = images(tmp_path, ledger, 10)
    try:
        for leave in (0, 4_096, 30_000, 200_000):
            stand.disk.empty()
            stand.disk.fill(leave)
            left = [one for one in made if not ledger.settled(one.sop_uid)]
            answers = by_pynetdicom(left, stand.port, "FULL")
            assert len(answers) == len(left), "an association did not survive the full disk"
            assert {status & 0xFF00 for status in answers.values()} <= {0, 0xA700}
            note(ledger, left, answers)
    finally:
        stand.disk.empty()
    left = [one for one in made if not ledger.settled(one.sop_uid)]
    assert left, "the disk was never full"
    assert not verdict.half_written(stand.spool.root), "half-written files keep the disk full"
    note(ledger, left, by_pynetdicom(left, stand.port, "FULL"))
    come_to_rest(stand, ledger)
    assert verdict.faults(stand, ledger) == []


def test_a_database_that_is_away_delays_nothing_but_the_index(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """With PostgreSQL stopped, objects are taken at once; when it is back they are indexed, and the study completed."""
    made = images(tmp_path, ledger, 8)
    note(ledger, made[:4], by_storescu(made[:4], stand.port, "NODB"))
    stand.server.stop(even_if_used=True)
    try:
        began = time.monotonic()
        note(ledger, made[4:], by_storescu(made[4:], stand.port, "NODB"))
        assert ledger.acknowledged >= {one.sop_uid for one in made}
        assert time.monotonic() - began < 30
    finally:
        stand.server.start()
    come_to_rest(stand, ledger)
    assert verdict.faults(stand, ledger) == []


def test_a_listener_starts_and_takes_objects_while_the_database_is_away(
    stand: Stand, ledger: Ledger, tmp_path: Path
) -> None:
    """Started without a database, the listener takes objects all the same, and indexes them when there is one."""
    made = images(tmp_path, ledger, 3)
    stand.server.stop(even_if_used=True)
    try:
        stand.listen.kill()
        stand.listen.start()
        stand.wait_listening()
        note(ledger, made, by_storescu(made, stand.port, "NODB"))
        assert ledger.acknowledged >= {one.sop_uid for one in made}
    finally:
        stand.server.start()
    come_to_rest(stand, ledger)
    assert verdict.faults(stand, ledger) == []


def test_a_study_from_several_senders_at_once_is_one_study(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """Parts of three studies, mixed, over four associations of four callers come together, in one revision each."""
    studies = [images(tmp_path, ledger, 8, seed=seed) for seed in (1, 2, 3)]
    mixed = [one for together in zip(*studies, strict=True) for one in together]

    def send(part: int) -> None:
        note(ledger, mixed[part::4], (by_storescu, by_pynetdicom)[part % 2](mixed[part::4], stand.port, f"AE{part}"))

    threads = [threading.Thread(target=send, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    come_to_rest(stand, ledger)
    assert verdict.faults(stand, ledger) == []
    assert ledger.acknowledged >= {one.sop_uid for one in mixed}


def test_half_written_files_of_dead_processes_are_removed_at_start(stand: Stand, ledger: Ledger) -> None:
    """What a killed listener had half written is gone after the next start, and is no object."""
    peer = RawPeer(HOST, stand.port, "WETREAD")
    before = set(stand.spool.object_keys())
    peer.begin_store("2.25.1")
    for fragment in itertools.islice(big_object("2.25.1", 1 << 22, frames=4), 20):
        peer.send_data(fragment)
    wait_until(lambda: verdict.half_written(stand.spool.root), what="a half-written file")
    stand.listen.kill()
    assert verdict.half_written(stand.spool.root)
    stand.listen.start()
    stand.wait_listening()
    wait_until(lambda: not verdict.half_written(stand.spool.root), what="its removal")
    assert set(stand.spool.object_keys()) == before


def test_a_refused_object_is_kept_with_its_reason(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """An object without a study is answered Cannot Understand, its bytes kept, and its neighbours taken."""
    studies = Studies(tmp_path / "sent", ledger, 5)
    made = [*studies.study(images=2), *studies.study(images=1, broken=True)]
    note(ledger, made, by_storescu(made, stand.port, "BROKEN"))
    broken = [one for one in made if one.kind is Kind.BROKEN]
    assert [ledger.refused.get(one.sop_uid, 0) & 0xF000 for one in broken] == [0xC000]
    come_to_rest(stand, ledger)
    wait_until(lambda: not verdict.faults(stand, ledger), what="no fault")


def test_a_silent_peer_does_not_keep_others_out(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """Connections that say nothing, or half a PDU, and hold still leave the listener free for others."""
    made = images(tmp_path, ledger, 3)
    silent = [socket.create_connection(("127.0.0.1", stand.port), timeout=60) for _ in range(10)]
    try:
        for number, connection in enumerate(silent):
            connection.sendall(b"\x01\x00\x00\x00\x00\xcd\x00\x01"[: number % 9])
        note(ledger, made, by_storescu(made, stand.port, "LOUD"))
        assert ledger.acknowledged >= {one.sop_uid for one in made}
    finally:
        for connection in silent:
            connection.close()
    come_to_rest(stand, ledger)
    assert verdict.faults(stand, ledger) == []


@pytest.mark.skipif(not may_set_clock(), reason="SKIPPED LOUDLY: clocks of processes' own need a C compiler")
def test_a_clock_set_back_hides_nothing_from_the_index(stand: Stand, ledger: Ledger, tmp_path: Path) -> None:
    """Taken ten days ago by a wrong clock, unknown to the index when all died, an object is found all the same."""
    assert stand.clock is not None
    early, late = images(tmp_path, ledger, 2), images(tmp_path, ledger, 2, seed=2)
    note(ledger, early, by_storescu(early, stand.port, "CLOCK"))
    come_to_rest(stand, ledger)
    stand.server.stop(even_if_used=True)
    try:
        stand.clock.set_back(864_000)
        note(ledger, late, by_storescu(late, stand.port, "CLOCK"))
        stand.listen.kill()
        stand.clock.set_back(0)
    finally:
        stand.server.start()
    stand.listen.start()
    stand.wait_listening()
    come_to_rest(stand, ledger)
    assert ledger.acknowledged >= {one.sop_uid for one in late}
    assert verdict.faults(stand, ledger) == []
