"""A pause for pynetdicom's association reactor that holds: what belongs upstream, until it is there.

pynetdicom (3.0.4, ``association.py``) pauses the thread that reads messages while it asks the peer something and waits
for the answer itself. The pause is an event and a flag, ``_is_paused``, that says whether the thread stands before the
event. Let go after one request and stopped for the next, a thread that has not woken yet still says that it stands;
then it wakes all the same, takes the answer off the queue as if the peer had asked something, and drops it. The request
waits for its time-out, and the association is aborted.
"""

from __future__ import annotations

import threading
from typing import cast

from pynetdicom.association import Association
from pynetdicom.events import Event


class Checkpoint:
    """In the place of an association's ``_reactor_checkpoint``: who leaves it says so before anybody can close it.

    Args:
        association: whose reactor comes to it. Its ``network_timeout_response`` is "A-ABORT", the default.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._changed = threading.Condition()
        self._open = True

    def set(self) -> None:
        """Let the reactor go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the reactor when it comes here next; one that stands here stays, though it was let go just before."""
        with self._changed:
            self._open = False

    def wait(self) -> None:
        """Pass, when that is allowed; the association then says that its reactor is not paused."""
        with self._changed:
            self._changed.wait_for(lambda: self._open)
            self._association._is_paused = False


def set_checkpoint(event: Event) -> None:
    """On a new association, before its reactor runs: a pause that holds. For ``evt.EVT_ESTABLISHED``."""
    event.assoc._reactor_checkpoint = cast(threading.Event, Checkpoint(event.assoc))
