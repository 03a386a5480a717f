"""Run a program under another user id, keeping at most one capability: how root starts a program that refuses root.

Run as a program of its own, so that no code runs between fork and exec in a process that has threads:

    python -I unprivileged.py UID GID CAPABILITY PROGRAM [ARGUMENT …]

CAPABILITY is a number of linux/capability.h. It is kept as an *ambient* one (capabilities(7)): the program holds it
although neither its file nor its user id has it, and so do the programs that it starts itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CAP_DAC_OVERRIDE = 1  # capabilities(7): passes every check of file permissions
CAP_DAC_READ_SEARCH = 2  # … of reading files and of walking through folders only

_PR_SET_KEEPCAPS = 8  # prctl(2)
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522  # capget(2)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(uid: int, gid: int, capability: int) -> None:
    """Change this process to `uid` and `gid` for good, with no group besides and only `capability` left.

    Raises OSError where the kernel or the container does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    mask = 1 << capability
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)(_Data(mask, mask, mask), _Data(0, 0, 0))
    _checked(libc.capset(ctypes.byref(header), data))
    _checked(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0))
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def has_capability(capability: int) -> bool:
    """Whether this process may use `capability`, and hand it on."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    permitted = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapPrm:"))
    return bool(permitted & 1 << capability)


def best_capability(program: str) -> int:
    """The weaker capability of the two above that lets another user, started by root, run `program`.

    The weaker one is missing from Docker's default set, and does not do for a program that others may not execute.
    """
    others_may_execute = Path(program).stat().st_mode & 0o001
    return CAP_DAC_READ_SEARCH if others_may_execute and has_capability(CAP_DAC_READ_SEARCH) else CAP_DAC_OVERRIDE


def main(arguments: list[str]) -> int:
    """Become the user that the arguments name and turn into the program; returns only where that failed."""
    uid, gid, capability, *command = arguments
    try:
        become(int(uid), int(gid), int(capability))
        os.execv(command[0], command)  # noqa: S606 - a list, no shell, is what is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]} as user id {uid}: {error}\n")
    return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
