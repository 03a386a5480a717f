"""A pause for pynetdicom's association reactor that holds: what belongs upstream, until it is there.

pynetdicom (3.0.4, ``association.py``) pauses the thread that reads messages while it asks the peer something and waits
for the answer itself. The pause is an event and a flag, ``_is_paused``, that says whether the thread stands before the
event. Let go after one request and stopped for the next, a thread that has not woken yet still says that it stands;
then it wakes all the same, takes the answer off the queue as if the peer had asked something, and drops it. The request
waits for its time-out, and the association is aborted.

The flag is written by others, too: an N-EVENT-REPORT is answered in a thread of its own, which in the end says that
nothing is paused. And a reactor that ends, because the peer aborts, never says that it stands. Either way who asked for
the pause would wait for ever.
"""

from __future__ import annotations

import threading
from typing import cast

from pynetdicom.association import Association
from pynetdicom.events import Event

_LOOK_AGAIN_S = 0.01


class Checkpoint:
    """In the place of an association's ``_reactor_checkpoint``: who leaves it says so before anybody can close it.

    Args:
        association: whose reactor comes to it. Its ``network_timeout_response`` is "A-ABORT", the default.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._changed = threading.Condition()
        self._open = True
        self._stands = False

    def set(self) -> None:
        """Let the reactor go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the reactor, and return when it stands here, or has ended.

        One that stands here stays, though it was let go just before.
        """
        with self._changed:
            self._open = False
            if threading.current_thread() is self._association:
                return  # in a handler, which is a pause already
            while not self._stands and self._association.is_alive():
                self._changed.wait(_LOOK_AGAIN_S)
            self._association._is_paused = True

    def wait(self) -> None:
        """Pass, when that is allowed; the association then says that its reactor is not paused."""
        with self._changed:
            self._stands = True
            self._changed.notify_all()
            while not self._open:
                self._association._is_paused = True
                self._changed.wait(_LOOK_AGAIN_S)
            self._stands = False
            self._association._is_paused = False


def set_checkpoint(event: Event) -> None:
    """On a new association, before anybody can ask for a pause: one that holds. For ``evt.EVT_CONN_OPEN``."""
    event.assoc._reactor_checkpoint = cast(threading.Event, Checkpoint(event.assoc))
