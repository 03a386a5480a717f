"""Syncs that are shared."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from dicom_listener.group_sync import GroupSync


def test_many_share_few_syncs_and_none_returns_before_one_that_began_after_its_work() -> None:
    """Twenty threads at once: each is covered by a sync that began when its work was done, and few are made."""
    work: list[int] = []
    covered: list[set[int]] = []

    def sync() -> None:
        seen = set(work)
        time.sleep(0.01)
        covered.append(seen)

    group, failures = GroupSync(sync), []

    def run(number: int) -> None:
        for step in range(5):
            mine = number * 10 + step
            work.append(mine)
            group.wait()
            if not any(mine in seen for seen in covered):
                failures.append(mine)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(work) == 100
    assert len(covered) <= 40


def test_failed_sync_fails_all_that_it_was_for_and_no_other() -> None:
    """An error of the disk reaches everybody who waited for that sync; the next one is another chance."""
    fail, begun, go_on = [True], threading.Event(), threading.Event()

    def sync() -> None:
        begun.set()
        go_on.wait(60)
        if fail[0]:
            raise OSError(errno.EIO, "Input/output error")

    group = GroupSync(sync)
    outcomes: list[int | None] = []

    def run() -> None:
        try:
            group.wait()
            outcomes.append(0)
        except OSError as error:
            outcomes.append(error.errno)

    threads = [threading.Thread(target=run) for _ in range(6)]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)
    go_on.set()
    for thread in threads:
        thread.join()
    assert outcomes == [errno.EIO] * 6
    fail[0] = False
    group.wait()
    with pytest.raises(OSError, match="Input/output"):
        fail[0] = True
        group.wait()
    assert group._failed == {}
    assert group._waiting == {}
