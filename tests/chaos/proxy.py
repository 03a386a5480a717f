"""A way to the listener that breaks: a TCP proxy that cuts connections after a random number of bytes."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
from collections.abc import Callable

from tests.peers import HOST

_CHUNK = 1 << 16
# SO_LINGER of zero seconds: close sends RST, as when a cable is pulled and the peer reboots.
_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards connections to ``port``, and cuts them where ``budget`` says after how many bytes.

    Args:
        port: of the listener, on the loopback interface.
        budget: asked for each connection: how many bytes of the sender's may pass; None: all.
        seed: decides whether a cut is a reset or an orderly end.
    """

    def __init__(self, port: int, budget: Callable[[], int | None], seed: int = 0) -> None:
        self._target = port
        self._budget = budget
        self._random = random.Random(seed)
        self._server = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self.cuts = 0
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def stop(self) -> None:
        """Accept no more; what is open is let go."""
        self._stopping.set()
        self._server.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((HOST, self._target), timeout=5)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._forward, args=(near, far, self._budget()), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket, budget: int | None) -> None:
        try:
            if _pump(near, far, budget):
                self.cuts += 1
                if self._random.random() < 0.5:
                    for one in (near, far):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # either side went away by itself
        finally:
            near.close()
            far.close()


def _pump(near: socket.socket, far: socket.socket, budget: int | None) -> bool:
    """Pass bytes on until a side ends; True: the sender's ``budget`` was spent before."""
    left = budget
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in selector.select():
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(_CHUNK)
                if not data:
                    return False
                if source is near and left is not None:
                    target.sendall(data[:left])
                    left -= len(data)
                    if left <= 0:
                        return True
                else:
                    target.sendall(data)
