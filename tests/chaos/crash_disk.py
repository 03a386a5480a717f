"""A disk that loses power: from recorded system calls to every state of its files that POSIX lets a crash leave.

The model promises no more than the standard does, so that no file system's kindness hides a mistake (the method is
that of ALICE: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):

- A file's bytes and length are durable once an fsync or fdatasync of it that began after the write has ended. Of what
  was written since, each sector may hold any of its versions, and the length may be any that it had.
- A name is durable once an fsync of its folder that began after the change has ended. Of the changes since, each name
  may show any. A rename shows whole or not at all, or, on file systems without a journal, under both names or neither.
- fsync of a file makes no name durable, and a folder that has no durable name itself is not there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.disk_history import Change, File, Folder, Write


@dataclass(frozen=True, slots=True)
class Manner:
    """How a disk behaved in the moments before power was lost."""

    applied: float  # probability that a change that nobody synchronised had reached the disk all the same
    sector: int  # bytes that are written whole or not at all
    stale: bool  # what was never written within a file's length: another file's old bytes; False: zeros
    journal: bool  # names changed in their order, up to some moment; False: each on its own
    torn_renames: bool  # a rename may show under both names, or neither

    @classmethod
    def by_chance(cls, chance: random.Random) -> Manner:
        """One of all manners."""
        journal = chance.random() < 0.4
        return cls(
            applied=chance.choice((0.0, 0.1, 0.5, 0.9, 1.0)),
            sector=chance.choice((512, 4096)),
            stale=chance.random() < 0.5,
            journal=journal,
            torn_renames=not journal and chance.random() < 0.3,
        )


# Path below the root → bytes of a file, None for a folder.
Tree = dict[str, bytes | None]


def live(root: Folder, at: int) -> Tree:
    """What the running system showed at this moment: all that had ended before it."""
    return _Crash(Manner(1.0, 4096, False, False, False), random.Random(0), at, whole=True).tree(root)


def crashed(root: Folder, at: int, manner: Manner, chance: random.Random) -> Tree:
    """What is there after a loss of power at this moment.

    Args:
        root: the folder; it was empty, and durable, when its history began.
        at: the moment, in the order of all beginnings and ends of calls.
        manner: how the disk behaved.
        chance: what had reached it.
    """
    return _Crash(manner, chance, at).tree(root)


class _Crash:
    """One loss of power."""

    def __init__(self, manner: Manner, chance: random.Random, at: int, *, whole: bool = False) -> None:
        self._manner = manner
        self._chance = chance
        self._at = at
        self._whole = whole
        self._until = chance.randrange(at + 1)  # what a journal holds
        self._files: dict[int, bytes] = {}
        self._shown: dict[tuple[int, str], int] = {}  # of a folder's name: how many of its changes show

    def tree(self, root: Folder) -> Tree:
        for folder in _folders(root):
            for name, changes in folder.names.items():
                self._shown[id(folder), name] = self._showing(changes, folder.syncs)
        if not self._manner.torn_renames:
            self._mend_renames(root)
        tree: Tree = {}
        self._collect(root, "", tree)
        return tree

    def _showing(self, changes: list[Change], syncs: list[tuple[int, int]]) -> int:
        begun = sum(change.enter < self._at for change in changes)
        if self._whole:
            return sum(change.leave < self._at for change in changes)
        durable = _durable(changes, syncs, self._at)
        if self._manner.journal:
            return max(durable, sum(change.leave < self._until for change in changes))
        return self._some(durable, begun)

    def _some(self, durable: int, begun: int) -> int:
        """How far what nobody synchronised had got."""
        reached = durable
        while reached < begun and self._chance.random() < self._manner.applied:
            reached += 1
        return reached

    def _mend_renames(self, root: Folder) -> None:
        """Let both halves of each rename show where one does."""
        halves: dict[int, list[tuple[tuple[int, str], int]]] = {}
        for folder in _folders(root):
            for name, changes in folder.names.items():
                for place, change in enumerate(changes):
                    if change.rename:
                        halves.setdefault(change.rename, []).append(((id(folder), name), place + 1))
        moved = True
        while moved:
            moved = False
            for sides in halves.values():
                if any(self._shown[key] >= needed for key, needed in sides):
                    for key, needed in sides:
                        if self._shown[key] < needed:
                            self._shown[key] = needed
                            moved = True

    def _collect(self, folder: Folder, path: str, tree: Tree) -> None:
        for name, changes in folder.names.items():
            shown = self._shown[id(folder), name]
            node = changes[shown - 1].node if shown else None
            if isinstance(node, Folder):
                tree[path + name] = None
                self._collect(node, f"{path}{name}/", tree)
            elif node is not None:
                tree[path + name] = self._content(node)

    def _content(self, file: File) -> bytes:
        """The same under each of its names."""
        if id(file) not in self._files:
            self._files[id(file)] = self._bytes(file)
        return self._files[id(file)]

    def _bytes(self, file: File) -> bytes:
        at = self._at
        begun = [write for write in file.writes if write.enter < at]
        if self._whole:
            begun = [write for write in begun if write.leave < at]
        durable = len(begun) if self._whole else _durable(begun, file.syncs, at)
        length = begun[durable - 1].length if durable else 0
        content = bytearray()
        for write in begun[:durable]:
            _put(content, write)
        if durable == len(begun):
            return bytes(content[:length].ljust(length, b"\0"))
        shown = self._some(durable, len(begun))
        length = begun[shown - 1].length if shown else 0
        written = bytearray(len(content))
        return self._torn(content, written, begun[durable:], length)

    def _torn(self, content: bytearray, written: bytearray, pending: list[Write], length: int) -> bytes:
        """Each sector as one of the writes that nobody synchronised left it, or as it was before all of them."""
        size = self._manner.sector
        for sector in range((length + size - 1) // size):
            start, end = sector * size, min(sector * size + size, length)
            touching = [write for write in pending if write.offset < end and write.offset + len(write.data) > start]
            piece = bytearray(content[start:end].ljust(end - start, b"\0"))
            reached = self._some(0, len(touching))
            if not reached and start >= len(written) and touching and self._manner.stale:
                piece[:] = self._chance.randbytes(end - start)
            for write in touching[:reached]:
                first, last = max(start, write.offset), min(end, write.offset + len(write.data))
                piece[first - start : last - start] = write.data[first - write.offset : last - write.offset]
            content[start:end] = piece
        return bytes(content[:length])


def _folders(root: Folder) -> list[Folder]:
    """All folders that there ever were."""
    found = [root]
    for folder in found:
        nodes = [change.node for changes in folder.names.values() for change in changes]
        found += [node for node in nodes if isinstance(node, Folder) and node not in found]
    return found


def _durable(changes: Sequence[Change | Write], syncs: list[tuple[int, int]], at: int) -> int:
    """How many of the changes a sync that ended before this moment is sure to hold."""
    began = max((enter for enter, leave in syncs if leave < at), default=-1)
    held = 0
    for number, change in enumerate(changes, 1):
        if change.leave < began:
            held = number
    return held


def _put(content: bytearray, write: Write) -> None:
    if write.length < len(content):
        del content[write.length :]
    end = write.offset + len(write.data)
    if write.data:
        if len(content) < write.offset:
            content.extend(bytes(write.offset - len(content)))
        content[write.offset : end] = write.data
