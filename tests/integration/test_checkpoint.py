"""Answers reach who asked for them, however late pynetdicom's reactor wakes: against DCMTK's storescp."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType

from dicom_listener.checkpoint import Checkpoint, set_checkpoint
from dicom_listener.library import prepare_library, set_no_delay
from dicom_listener.sender import VERIFICATION
from tests.peers import HOST, storescp_server

_ECHOES = 20
_LATE_S = 0.05  # that a reactor wakes late, unless a request is out before


class Watched:
    """An association's reactor, made to wake at the worst time, and how often it reached for another's answer."""

    def __init__(self, association: Association) -> None:
        self.reached = 0
        self._asked = threading.Event()
        dimse: Any = association.dimse
        send, get = dimse.send_msg, dimse.get_msg

        def send_msg(*arguments: Any) -> None:
            self._asked.set()
            send(*arguments)

        def get_msg(block: bool = False) -> Any:
            self.reached += not block and self._asked.is_set()
            message = get(block)
            if block:
                self._asked.clear()
            return message

        dimse.send_msg, dimse.get_msg = send_msg, get_msg
        checkpoint: Any = association._reactor_checkpoint
        wait = checkpoint.wait

        def wait_and_wake_late() -> None:
            wait()
            self._asked.wait(_LATE_S)

        checkpoint.wait = wait_and_wake_late


def reached(folder: Path, prepare: Callable[[Event], None]) -> int:
    """How often a reactor reaches for the answers to so many C-ECHO in a row over one association."""
    prepare_library()
    watched: list[Watched] = []

    def established(event: Event) -> None:
        prepare(event)
        watched.append(Watched(event.assoc))

    ae = AE()
    ae.dimse_timeout = 2
    ae.add_requested_context(VERIFICATION)
    handlers: list[EventHandlerType] = [(evt.EVT_CONN_OPEN, set_no_delay), (evt.EVT_ESTABLISHED, established)]
    with storescp_server(folder) as peer:
        assoc = ae.associate(HOST, peer.dicom_port, evt_handlers=handlers)
        for _ in range(_ECHOES):
            if assoc.is_established:
                assoc.send_c_echo()
        assoc.abort()
    return watched[0].reached


def test_no_answer_is_reached_for_by_a_reactor_that_wakes_late(tmp_path: Path) -> None:
    """With our checkpoint a request waits until the reactor really stands still."""

    def prepare(event: Event) -> None:
        set_checkpoint(event)
        assert isinstance(event.assoc._reactor_checkpoint, Checkpoint)

    assert reached(tmp_path, prepare) == 0


@pytest.mark.parametrize("ends", [False, True])
def test_a_release_comes_to_its_end(tmp_path: Path, ends: bool) -> None:
    """Although a report that is answered meanwhile says that nothing is paused, or the reactor ended just before."""
    prepare_library()
    ae = AE()
    ae.acse_timeout = 2
    ae.add_requested_context(VERIFICATION)
    with storescp_server(tmp_path) as peer:
        assoc = ae.associate(HOST, peer.dicom_port, evt_handlers=[(evt.EVT_CONN_OPEN, set_checkpoint)])
        checkpoint: Any = assoc._reactor_checkpoint
        clear = checkpoint.clear

        def clear_at_the_worst_time() -> None:
            if ends:
                assoc._kill = True
                assoc.join(5)
                assoc._is_paused = False
            clear()
            if not ends:
                time.sleep(_LATE_S)  # the reactor stands still
                # pynetdicom answers an N-EVENT-REPORT in a thread of its own, and then writes this.
                assoc._is_paused = False

        checkpoint.clear = clear_at_the_worst_time
        releasing = threading.Thread(target=assoc.release, daemon=True)
        releasing.start()
        releasing.join(10)
        assert not releasing.is_alive()
        assoc.abort()


def test_pynetdicom_still_needs_it(tmp_path: Path) -> None:
    """With pynetdicom's own event a reactor reaches for another's answers: where it no longer does, ours can go."""
    assert reached(tmp_path, lambda _event: None) > 0
