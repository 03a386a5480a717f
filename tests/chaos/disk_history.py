"""The files below a folder as a program's recorded system calls made them, each with all that was done to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tests.chaos.syscalls import UNKNOWN, Call, path_of, text_of

_WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")


class Unmodelled(Exception):
    """The recorded program did something to its files that the model of a disk does not know."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written, or a new length."""

    enter: int
    leave: int
    offset: int
    data: bytes
    length: int  # of the file after it


@dataclass(frozen=True, slots=True)
class Change:
    """A name's new meaning."""

    enter: int
    leave: int
    node: File | Folder | None  # None: the name is free
    rename: int  # number of the rename whose half it is; 0: none


@dataclass(eq=False)
class File:
    """A file, whatever it is called."""

    writes: list[Write] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)
    length: int = 0


@dataclass(eq=False)
class Folder:
    """A folder, and what each name in it meant."""

    names: dict[str, list[Change]] = field(default_factory=dict)
    syncs: list[tuple[int, int]] = field(default_factory=list)

    def now(self, name: str) -> File | Folder | None:
        """What the name means to the running system."""
        changes = self.names.get(name)
        return changes[-1].node if changes else None


class History:
    """The history of all files below a folder.

    Args:
        root: the folder, absolute and without links; it was empty, and durable, when the recording began.
        calls: what the program did.

    Raises:
        Unmodelled: it did what the model does not know.
    """

    def __init__(self, root: str, calls: Iterable[Call]) -> None:
        self.root = Folder()
        self._path = root.rstrip("/")
        self._last: dict[str, File | Folder] = {}  # what a path meant last
        self._opened: dict[tuple[int, str], File | Folder] = {}  # by thread and descriptor
        self._offsets: dict[tuple[int, str], int] = {}  # by file and descriptor; -1: always at the end
        self._direct: set[tuple[int, str]] = set()  # opened so that each write is synchronised
        self._renames = 0
        self.changes = 0  # to files and names
        self.moments: list[int] = []  # before each change and each sync
        self._known = self._methods()
        calls = list(calls)
        for number, call in enumerate(calls):
            if call.result != UNKNOWN or self._happened(call, calls[number + 1 :]):
                self._replay(call)

    def _happened(self, call: Call, later: Sequence[Call]) -> bool:
        """Whether a call that was under way when its process died had an effect: as later calls show."""
        if call.name.startswith("open"):
            return "O_CREAT" in call.arguments[2] and self._is_named(call.arguments[1], later)
        if call.name.startswith("rename"):
            return not self._is_named(call.arguments[0], later) and self._is_named(call.arguments[1], later)
        if call.name.startswith("unlink"):
            return not self._is_named(call.arguments[0], later)
        return call.name.startswith("mkdir") or (call.name in _WRITES and self._is_ours(call.arguments[0]))

    def _is_named(self, argument: str, later: Sequence[Call]) -> bool:
        return self._is_ours(argument) and any(argument in call.arguments for call in later)

    def _methods(self) -> Mapping[str, Callable[[Call], None]]:
        methods = {
            self._open: "open openat creat",
            self._write: " ".join(_WRITES),
            self._seek: "lseek",
            self._resize: "ftruncate fallocate",
            self._sync: "fsync fdatasync",
            self._sync_all: "sync syncfs",
            self._rename: "rename renameat renameat2",
            self._link: "link linkat",
            self._remove: "unlink unlinkat rmdir",
            self._make_folder: "mkdir mkdirat",
            self._map: "mmap",
        }
        return {name: method for method, names in methods.items() for name in names.split()}

    # --- replaying ----------------------------------------------------------------------------------------------------

    def _replay(self, call: Call) -> None:
        if call.name == "io_uring_setup":
            raise Unmodelled("io_uring")
        replay = self._known.get(call.name)
        if replay is not None:
            replay(call)
        elif any(map(self._is_ours, call.arguments)) and not call.name.startswith("send"):
            raise Unmodelled(f"{call.name} of a file below the root")

    def _sync(self, call: Call) -> None:
        node = self._node(call, call.arguments[0])
        if node is not None:
            node.syncs.append((call.enter, call.leave))
            self.moments.append(call.enter)

    def _seek(self, call: Call) -> None:
        node = self._node(call, call.arguments[0])
        here = (id(node), _descriptor(call.arguments[0]))
        if self._offsets.get(here, -1) >= 0:
            self._offsets[here] = call.value

    def _remove(self, call: Call) -> None:
        self._change(call, self._absolute(call, 1 if call.name.endswith("at") else 0), None)

    def _make_folder(self, call: Call) -> None:
        self._change(call, self._absolute(call, 1 if call.name.endswith("at") else 0), Folder())

    def _open(self, call: Call) -> None:
        at = 1 if call.name == "openat" else 0
        flags = call.arguments[at + 1] if call.name != "creat" else "O_WRONLY|O_CREAT|O_TRUNC"
        path = self._absolute(call, at)
        if path is None:
            return
        if "O_TMPFILE" in flags:
            node: File | Folder = File()
            self._last[call.result_path] = node
        else:
            folder, name = self._place(path)
            found = self.root if not name else folder.now(name)
            if found is None:
                if "O_RDONLY" in flags:
                    return  # gone again, in the moment between the call and its line
                if "O_CREAT" not in flags:
                    raise Unmodelled(f"a file was opened that nobody made: {path}")
                found = File()
                self._change(call, path, found)
            node = found
            if isinstance(node, File) and "O_TRUNC" in flags and node.length:
                node.writes.append(Write(call.enter, call.leave, 0, b"", 0))
                node.length = 0
        self._opened[call.thread, call.result] = node
        self._offsets[id(node), call.result] = -1 if "O_APPEND" in flags else 0
        (self._direct.add if "SYNC" in flags else self._direct.discard)((id(node), call.result))

    def _write(self, call: Call) -> None:
        node = self._node(call, call.arguments[0])
        if not isinstance(node, File):
            return
        if call.name == "pwritev2" and "RWF" in call.arguments[-1]:
            raise Unmodelled("pwritev2 with flags")
        data = b"".join(map(text_of, call.arguments[1:2]))
        if call.result != UNKNOWN:
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
        node.writes.append(Write(call.enter, call.leave, offset, data, node.length))
        self._count(call)
        if here in self._direct and call.result != UNKNOWN:
            # Its own write is among what is synchronised when it returns.
            node.syncs.append((call.leave + 1, call.leave + 1))

    def _resize(self, call: Call) -> None:
        node = self._node(call, call.arguments[0])
        if not isinstance(node, File):
            return
        if call.name == "ftruncate":
            node.length = int(call.arguments[1])
        elif call.arguments[1] == "0":
            node.length = max(node.length, int(call.arguments[2]) + int(call.arguments[3]))
        elif "KEEP_SIZE" not in call.arguments[1] or "PUNCH" in call.arguments[1] or "ZERO" in call.arguments[1]:
            raise Unmodelled(f"fallocate with {call.arguments[1]}")
        node.writes.append(Write(call.enter, call.leave, 0, b"", node.length))
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
        if not isinstance(node, File):
            raise Unmodelled("a link to what nobody made")
        self._change(call, target, node)

    def _linked(self, call: Call) -> File | Folder | None:
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

    def _change(self, call: Call, path: str | None, node: File | Folder | None, rename: int = 0) -> None:
        if path is None:
            return
        folder, name = self._place(path)
        former = folder.now(name)
        if former is not None:
            self._last[path] = former
        folder.names.setdefault(name, []).append(Change(call.enter, call.leave, node, rename))
        if node is not None:
            self._last[path] = node
        self._count(call)

    def _count(self, call: Call) -> None:
        self.changes += 1
        self.moments.append(call.enter)

    def _sync_all(self, call: Call) -> None:
        waiting: list[File | Folder] = [self.root]
        for node in waiting:
            node.syncs.append((call.enter, call.leave))
            if isinstance(node, Folder):
                waiting += [changes[-1].node for changes in node.names.values() if changes[-1].node is not None]

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

    def _place(self, path: str) -> tuple[Folder, str]:
        """The folder that a path's last name stands in, and that name."""
        *above, name = path.removeprefix(self._path).lstrip("/").split("/")
        folder = self.root
        for part in above:
            found = folder.now(part)
            if not isinstance(found, Folder):
                raise Unmodelled(f"a folder that nobody made: {path}")
            folder = found
        return folder, name

    def _node(self, call: Call, argument: str) -> File | Folder | None:
        """What a descriptor means; None where that lies elsewhere."""
        path, deleted = path_of(argument)
        if path != self._path and not path.startswith(f"{self._path}/"):
            return None
        if not deleted:
            folder, name = self._place(path)
            node = self.root if not name else folder.now(name)
            if node is not None:
                return node
        found = self._opened.get((call.thread, _descriptor(argument))) or self._last.get(path)
        if found is None:
            raise Unmodelled(f"a descriptor that was not seen to be opened: {path}")
        return found


def _descriptor(argument: str) -> str:
    return argument.partition("<")[0]
