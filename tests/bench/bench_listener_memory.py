"""How much memory the listener takes: at rest, while an object of 2 GB comes in, and with 200 associations open.

    python -m tests.bench.bench_listener_memory [--gigabytes 2] [--associations 200]

Proportional set size of all its processes together, so memory that they share counts once. Wanted: at most 120 MB at
rest, flat while the big object comes, at most 400 MB with 200 associations in the middle of an object each.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom.uid import generate_uid

from tests.bench import senders
from tests.bench.receivers import Ours, Receiver, pids, places
from tests.chaos.processes import pss_mib
from tests.peers import HOST
from tests.raw_peer import RawPeer, big_object

_MB = 1.048576  # megabytes in a mebibyte


def megabytes(receiver: Receiver) -> float:
    """Proportional set size of all its processes, in MB (10^6 bytes)."""
    return pss_mib(pids(receiver)) * _MB


@contextmanager
def watched(receiver: Receiver) -> Iterator[list[float]]:
    """What it took while the block ran, looked at ten times a second."""
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(megabytes(receiver))
            done.wait(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def big(receiver: Receiver, size: int) -> tuple[float, float]:
    """Send one object of ``size`` bytes; seconds, and the most memory meanwhile."""
    peer = RawPeer(HOST, receiver.port, receiver.called)
    sop_uid = generate_uid()
    began = time.perf_counter()
    with watched(receiver) as seen:
        peer.begin_store(sop_uid)
        for fragment in big_object(sop_uid, size, frames=1024):
            peer.send_data(fragment)
        peer.send_data(b"", last=True)
        peer.socket.settimeout(600)
        status = peer.status()
        answered = time.perf_counter() - began
        senders.until_indexed(receiver, 1)
    peer.release()
    if status != 0:
        raise RuntimeError(f"the big object was answered with {status:04X}")
    return answered, max(seen)


def crowd(receiver: Receiver, count: int) -> tuple[float, float, int]:
    """Memory with so many associations open and idle, then each in the middle of an object; how many were stored."""
    peers = [RawPeer(HOST, receiver.port, receiver.called, f"RAW{n}") for n in range(count)]
    time.sleep(1)
    idle = megabytes(receiver)

    def each(act: Callable[[int], None]) -> None:
        for number in range(count):
            act(number)

    uids = [generate_uid() for _ in peers]
    objects = [big_object(uid, 1 << 20, frames=4) for uid in uids]
    each(lambda n: peers[n].begin_store(uids[n]))
    for _ in range(5):
        each(lambda n: peers[n].send_data(next(objects[n])))
    time.sleep(1)
    busy = megabytes(receiver)
    for peer, rest in zip(peers, objects, strict=True):
        for fragment in rest:
            peer.send_data(fragment)
        peer.send_data(b"", last=True)
    stored = sum(peer.status() == 0 for peer in peers)
    for peer in peers:
        peer.release()
    return idle, busy, stored


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_listener_memory", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--associations", type=int, default=200)
    parser.add_argument("--processes", type=int, default=0, help="our acceptor processes; 0: as many as it chooses")
    told = parser.parse_args()
    with places() as place:
        ours = Ours(place / "ours", told.processes)
        try:
            with ours(place / "receiver") as receiver:
                time.sleep(5)
                print(f"at rest, {len(pids(receiver))} processes: {megabytes(receiver):.0f} MB (wanted: 120)")
                seconds, most = big(receiver, int(told.gigabytes * 1e9))
                print(
                    f"an object of {told.gigabytes:g} GB in {seconds:.0f} s: at most {most:.0f} MB until it is indexed"
                )
            with ours(place / "receiver") as receiver:
                idle, busy, stored = crowd(receiver, told.associations)
                print(
                    f"{told.associations} associations: {idle:.0f} MB idle, {busy:.0f} MB in the middle of an object "
                    f"each (wanted: 400); {stored} stored"
                )
        finally:
            ours.close()


if __name__ == "__main__":
    main()
