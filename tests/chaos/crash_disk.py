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
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tests.chaos.syscalls import NEVER, Call, path_of, text_of

# On the way to a disk in the model that do not exist in it: no result could be believed.
_UNKNOWN = frozenset(
    ("sync_file_range", "copy_file_range", "sendfile", "splice", "vmsplice", "symlink", "symlinkat", "openat2")
)


class Unmodelled(Exception):
    """The recorded program did something to its files that the model of a disk does not know."""


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


@dataclass(frozen=True, slots=True)
class _Write:
    enter: int
    leave: int
    offset: int
    data: bytes
    length: int  # of the file after it


@dataclass(frozen=True, slots=True)
class _Change:
    """A name's new meaning."""

    enter: int
    leave: int
    node: _File | _Folder | None  # None: the name is free
    rename: int  # number of the rename whose half it is; 0: none


@dataclass(eq=False)
class _File:
    writes: list[_Write] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)
    length: int = 0


@dataclass(eq=False)
class _Folder:
    names: dict[str, list[_Change]] = field(default_factory=dict)
    syncs: list[tuple[int, int]] = field(default_factory=list)

    def now(self, name: str) -> _File | _Folder | None:
        """What the name means to the running system."""
        changes = self.names.get(name)
        return changes[-1].node if changes else None


# Path below the root → bytes of a file, None for a folder.
Tree = dict[str, bytes | None]


class CrashDisk:
    """The history of all files below a folder.

    Args:
        root: the folder, absolute and without links; it was empty, and durable, when the recording began.
        calls: what the program did.

    Raises:
        Unmodelled: it did what the model does not know.
    """

    def __init__(self, root: str, calls: Iterable[Call]) -> None:
        self._root = _Folder()
        self._path = root.rstrip("/")
        self._last: dict[str, _File | _Folder] = {}  # what a path meant last
        self._opened: dict[tuple[int, str], _File | _Folder] = {}  # by thread and descriptor
        self._offsets: dict[tuple[int, str], int] = {}  # by file and descriptor; -1: always at the end
        self._direct: set[tuple[int, str]] = set()  # opened so that each write is synchronised
        self._renames = 0
        self.changes = 0  # to files and names
        self.moments: list[int] = []  # before each change and each sync
        for call in calls:
            self._replay(call)

    def live(self, at: int) -> Tree:
        """What the running system showed at this moment: all that had ended before it."""
        return _Crash(Manner(1.0, 4096, False, False, False), random.Random(0), at, whole=True).tree(self._root)

    def crash(self, at: int, manner: Manner, chance: random.Random) -> Tree:
        """What is there after a loss of power at this moment."""
        return _Crash(manner, chance, at).tree(self._root)

    # --- replaying ----------------------------------------------------------------------------------------------------

    def _replay(self, call: Call) -> None:
        name, arguments = call.name, call.arguments
        if name == "io_uring_setup":
            raise Unmodelled("io_uring")
        if name in ("sync", "syncfs"):
            self._sync_all(self._root, call)
        elif name in ("open", "openat", "creat"):
            self._open(call)
        elif name in ("write", "writev", "pwrite64", "pwritev", "pwritev2"):
            self._write(call)
        elif name in ("fsync", "fdatasync"):
            node = self._node(call, arguments[0])
            if node is not None and call.leave != NEVER:
                node.syncs.append((call.enter, call.leave))
                self.moments.append(call.enter)
        elif name == "lseek":
            node = self._node(call, arguments[0])
            if node is not None:
                self._offsets[id(node), _descriptor(arguments[0])] = call.value
        elif name in ("ftruncate", "fallocate"):
            self._resize(call)
        elif name in ("rename", "renameat", "renameat2"):
            self._rename(call)
        elif name in ("link", "linkat"):
            self._link(call)
        elif name in ("unlink", "unlinkat", "rmdir"):
            self._change(call, self._absolute(call, 0 if name != "unlinkat" else 1), None)
        elif name in ("mkdir", "mkdirat"):
            self._change(call, self._absolute(call, 0 if name == "mkdir" else 1), _Folder())
        elif name == "mmap":
            self._map(call)
        elif name in _UNKNOWN or name == "truncate":
            if any(self._is_ours(argument) for argument in arguments):
                raise Unmodelled(f"{name} of a file below the root")

    def _open(self, call: Call) -> None:
        at = 1 if call.name == "openat" else 0
        flags = call.arguments[at + 1] if call.name != "creat" else "O_WRONLY|O_CREAT|O_TRUNC"
        path = self._absolute(call, at)
        if path is None or call.leave == NEVER:
            return
        if "O_TMPFILE" in flags:
            node: _File | _Folder = _File()
            self._last[call.result_path] = node
        else:
            folder, name = self._place(path)
            found = self._root if not name else folder.now(name)
            if found is None:
                if "O_CREAT" not in flags:
                    raise Unmodelled(f"a file was opened that nobody made: {path}")
                found = _File()
                self._change(call, path, found)
            node = found
            if isinstance(node, _File) and "O_TRUNC" in flags and node.length:
                node.writes.append(_Write(call.enter, call.leave, 0, b"", 0))
                node.length = 0
        self._opened[call.thread, call.result] = node
        self._offsets[id(node), call.result] = -1 if "O_APPEND" in flags else 0
        (self._direct.add if "SYNC" in flags else self._direct.discard)((id(node), call.result))

    def _write(self, call: Call) -> None:
        node = self._node(call, call.arguments[0])
        if not isinstance(node, _File):
            return
        if call.name == "pwritev2" and "RWF" in call.arguments[-1]:
            raise Unmodelled("pwritev2 with flags")
        data = b"".join(map(text_of, call.arguments[1:2]))
        if call.leave != NEVER:
            data = data[: call.value]
        here = (id(node), _descriptor(call.arguments[0]))
        if call.name in ("write", "writev"):
            place = self._offsets.get(here)
            if place is None:
                raise Unmodelled("a write to a descriptor that was not seen to be opened")
            offset = node.length if place < 0 else place
            if place >= 0:
                self._offsets[here] = offset + len(data)
        else:
            offset = int(call.arguments[3])
        node.length = max(node.length, offset + len(data))
        node.writes.append(_Write(call.enter, call.leave, offset, data, node.length))
        self._count(call)
        if here in self._direct and call.leave != NEVER:
            # Its own write is among what is synchronised when it returns.
            node.syncs.append((call.leave + 1, call.leave + 1))

    def _resize(self, call: Call) -> None:
        node = self._node(call, call.arguments[0])
        if not isinstance(node, _File):
            return
        if call.name == "ftruncate":
            node.length = int(call.arguments[1])
        elif call.arguments[1] == "0":
            node.length = max(node.length, int(call.arguments[2]) + int(call.arguments[3]))
        elif "KEEP_SIZE" not in call.arguments[1] or "PUNCH" in call.arguments[1] or "ZERO" in call.arguments[1]:
            raise Unmodelled(f"fallocate with {call.arguments[1]}")
        node.writes.append(_Write(call.enter, call.leave, 0, b"", node.length))
        self._count(call)

    def _rename(self, call: Call) -> None:
        at = 0 if call.name == "rename" else 1
        source, target = self._absolute(call, at), self._absolute(call, 2 * at + 1)
        if source is None and target is None:
            return
        if source is None or target is None:
            raise Unmodelled("a rename over the root's border")
        if call.name == "renameat2" and call.arguments[4] not in ("0", "RENAME_NOREPLACE"):
            raise Unmodelled(f"renameat2 with {call.arguments[4]}")
        folder, name = self._place(source)
        node = folder.now(name)
        if node is None:
            raise Unmodelled(f"a rename of what nobody made: {source}")
        self._renames += 1
        self._change(call, target, node, self._renames)
        self._change(call, source, None, self._renames)

    def _link(self, call: Call) -> None:
        if call.name == "link":
            source, target = self._absolute(call, 0), self._absolute(call, 1)
            node = None if source is None else self._place(source)[0].now(self._place(source)[1])
        else:
            target = self._absolute(call, 3)
            node = self._linked(call)
        if target is None:
            return
        if not isinstance(node, _File):
            raise Unmodelled("a link to what nobody made")
        self._change(call, target, node)

    def _linked(self, call: Call) -> _File | _Folder | None:
        """What linkat gives a name to."""
        source = text_of(call.arguments[1]).decode()
        if not source:  # AT_EMPTY_PATH
            return self._node(call, call.arguments[0])
        if own := re.fullmatch(r"/proc/(?:self|thread-self|\d+)/fd/(\d+)", source):
            return self._opened.get((call.thread, own[1]))
        path = self._absolute(call, 1)
        if path is None:
            return None
        folder, name = self._place(path)
        return folder.now(name)

    def _map(self, call: Call) -> None:
        if "PROT_WRITE" in call.arguments[2] and "MAP_SHARED" in call.arguments[3] and self._is_ours(call.arguments[4]):
            raise Unmodelled("a shared writable map of a file")

    def _change(self, call: Call, path: str | None, node: _File | _Folder | None, rename: int = 0) -> None:
        if path is None:
            return
        if call.leave == NEVER:
            # Whether later calls saw it cannot be told.
            raise Unmodelled(f"{call.name} was under way when the recording ended")
        folder, name = self._place(path)
        former = folder.now(name)
        if former is not None:
            self._last[path] = former
        folder.names.setdefault(name, []).append(_Change(call.enter, call.leave, node, rename))
        if node is not None:
            self._last[path] = node
        self._count(call)

    def _count(self, call: Call) -> None:
        self.changes += 1
        self.moments.append(call.enter)

    def _sync_all(self, folder: _Folder, call: Call) -> None:
        folder.syncs.append((call.enter, call.leave))
        for changes in folder.names.values():
            node = changes[-1].node
            if isinstance(node, _Folder):
                self._sync_all(node, call)
            elif node is not None:
                node.syncs.append((call.enter, call.leave))

    # --- finding ------------------------------------------------------------------------------------------------------

    def _is_ours(self, argument: str) -> bool:
        path = path_of(argument)[0] or text_of(argument).decode("utf-8", "surrogateescape")
        return path == self._path or path.startswith(f"{self._path}/")

    def _absolute(self, call: Call, at: int) -> str | None:
        """The path that stands at this argument, below the root; None where it lies elsewhere."""
        path = PurePosixPath(text_of(call.arguments[at]).decode("utf-8", "surrogateescape"))
        if not path.is_absolute():
            if not call.name.endswith(("at", "at2")):
                return None  # nothing here changes into the root
            path = PurePosixPath(path_of(call.arguments[at - 1])[0]) / path
        text = str(path)
        if ".." in path.parts and self._path in text:
            raise Unmodelled(f"a path with ..: {text}")
        return text if text == self._path or text.startswith(f"{self._path}/") else None

    def _place(self, path: str) -> tuple[_Folder, str]:
        """The folder that a path's last name stands in, and that name."""
        *above, name = path.removeprefix(self._path).lstrip("/").split("/")
        folder = self._root
        for part in above:
            found = folder.now(part)
            if not isinstance(found, _Folder):
                raise Unmodelled(f"a folder that nobody made: {path}")
            folder = found
        return folder, name

    def _node(self, call: Call, argument: str) -> _File | _Folder | None:
        """What a descriptor means; None where that lies elsewhere."""
        path, deleted = path_of(argument)
        if path != self._path and not path.startswith(f"{self._path}/"):
            return None
        if not deleted:
            folder, name = self._place(path)
            node = self._root if not name else folder.now(name)
            if node is not None:
                return node
        found = self._opened.get((call.thread, _descriptor(argument))) or self._last.get(path)
        if found is None:
            raise Unmodelled(f"a descriptor that was not seen to be opened: {path}")
        return found


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

    def tree(self, root: _Folder) -> Tree:
        self._choose(root, set())
        if not self._manner.torn_renames:
            self._mend_renames(root)
        tree: Tree = {}
        self._collect(root, "", tree)
        return tree

    def _choose(self, folder: _Folder, seen: set[int]) -> None:
        if id(folder) in seen:
            return
        seen.add(id(folder))
        for name, changes in folder.names.items():
            self._shown[id(folder), name] = self._showing(changes, folder.syncs)
            for change in changes:
                if isinstance(change.node, _Folder):
                    self._choose(change.node, seen)

    def _showing(self, changes: list[_Change], syncs: list[tuple[int, int]]) -> int:
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

    def _mend_renames(self, root: _Folder) -> None:
        """Let both halves of each rename show where one does."""
        halves: dict[int, list[tuple[tuple[int, str], int]]] = {}
        for folder in _folders(root, {}):
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

    def _collect(self, folder: _Folder, path: str, tree: Tree) -> None:
        for name, changes in folder.names.items():
            shown = self._shown[id(folder), name]
            node = changes[shown - 1].node if shown else None
            if isinstance(node, _Folder):
                tree[path + name] = None
                self._collect(node, f"{path}{name}/", tree)
            elif node is not None:
                tree[path + name] = self._content(node)

    def _content(self, file: _File) -> bytes:
        """The same under each of its names."""
        if id(file) not in self._files:
            self._files[id(file)] = self._bytes(file)
        return self._files[id(file)]

    def _bytes(self, file: _File) -> bytes:
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

    def _torn(self, content: bytearray, written: bytearray, pending: list[_Write], length: int) -> bytes:
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


def _folders(folder: _Folder, seen: dict[int, _Folder]) -> Iterable[_Folder]:
    if id(folder) not in seen:
        seen[id(folder)] = folder
        for changes in folder.names.values():
            for change in changes:
                if isinstance(change.node, _Folder):
                    _folders(change.node, seen)
    return seen.values()


def _durable(changes: list[_Change] | list[_Write], syncs: list[tuple[int, int]], at: int) -> int:
    """How many of the changes a sync that ended before this moment is sure to hold."""
    began = max((enter for enter, leave in syncs if leave < at), default=-1)
    held = 0
    for number, change in enumerate(changes, 1):
        if change.leave < began:
            held = number
    return held


def _put(content: bytearray, write: _Write) -> None:
    if write.length < len(content):
        del content[write.length :]
    end = write.offset + len(write.data)
    if write.data:
        if len(content) < write.offset:
            content.extend(bytes(write.offset - len(content)))
        content[write.offset : end] = write.data


def _descriptor(argument: str) -> str:
    return argument.partition("<")[0]


def file_count(tree: Mapping[str, bytes | None]) -> int:
    """How many files a tree has."""
    return sum(content is not None for content in tree.values())
