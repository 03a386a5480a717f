"""The embedded PostgreSQL's data folder: under which user id it lives, how it is made, and what it is told."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy import postgres_files, unprivileged
from fhir_records.errors import EmbeddedServerError

# All that PostgreSQL sees of the starter's environment: PG* variables would change what it does.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_UNUSED_UIDS = range(60706, 61184)  # in no range of systemd.io/UIDS-GIDS, and small enough to be mapped in containers


def as_user(uid: int, gid: int) -> list[str]:
    """What to put before a command so that it runs as `uid`: nothing where that is this process's own."""
    if uid == os.geteuid():
        return []
    capability = unprivileged.best_capability(str(postgres_files.binaries() / "postgres"))
    return [sys.executable, "-I", str(Path(unprivileged.__file__).resolve()), str(uid), str(gid), str(capability)]


def check_privileges() -> None:
    """Raise EmbeddedServerError where this process is root without what it takes to run the server as another user."""
    if os.geteuid() == 0 and not unprivileged.has_capability(unprivileged.CAP_DAC_OVERRIDE):
        raise EmbeddedServerError(
            "root without CAP_DAC_OVERRIDE cannot run the embedded database; run Wetread as a user of its own, or set "
            "WETREAD_DATABASE_URL"
        )


def make(data: Path) -> None:
    """Make the folder `data` with `initdb`; it takes its name only when it is whole.

    Raises EmbeddedServerError where the user id has no name or initdb fails.
    """
    for leftover in data.parent.glob("new-*"):
        shutil.rmtree(leftover)
    uid, builder = _owner_and_builder()
    new = Path(tempfile.mkdtemp(prefix="new-", dir=data.parent))
    if builder.pw_uid != os.geteuid():
        os.chown(new, builder.pw_uid, builder.pw_gid)
    command = [
        *as_user(builder.pw_uid, builder.pw_gid),
        *(str(postgres_files.binaries() / "initdb"), "--pgdata", str(new)),
        *("--username", postgres_files.ADMINISTRATOR, "--auth", "peer", "--encoding", "UTF8"),
        *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        *("--data-checksums", "--no-instructions"),
    ]
    done = subprocess.run(command, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmbeddedServerError(f"initdb failed: {done.stderr.strip()}")
    if uid != builder.pw_uid:
        for folder, _, files in os.walk(new):
            os.chown(folder, uid, uid)
            for name in files:
                os.chown(Path(folder, name), uid, uid, follow_symlinks=False)
    new.rename(data)
    parent = os.open(data.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def prepare(data: Path) -> int:
    """Write the server's configuration anew, see to its socket's and its log's folder; the user id to run it under.

    Raises EmbeddedServerError where the folder was made by another major version of PostgreSQL.
    """
    version = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if version != str(postgres_files.MAJOR_VERSION):
        raise EmbeddedServerError(
            f"{data} was made by PostgreSQL {version}, this is {postgres_files.MAJOR_VERSION}; back up with the Wetread"
            " that made it, and restore with this one"
        )
    uid = data.stat().st_uid
    make_own(data.parent / "log", uid)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    for name, text in postgres_files.configuration(_socket_directory(data.parent, uid), owner).items():
        _replace(data / name, text, uid)
    return uid


def make_own(folder: Path, uid: int) -> None:
    """See to it that `folder` exists, belongs to `uid` and lets nobody else in."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    if folder.stat().st_uid != uid:
        os.chown(folder, uid, uid)


def _socket_directory(parent: Path, uid: int) -> Path:
    """The folder of the socket, the same as last time where that is possible; clients read it from a file."""
    record = parent / "socket_directory"
    if record.exists():
        before = Path(record.read_text(encoding="utf-8").strip())
        if postgres_files.usable_socket_directory(before, uid, parent):
            return before
    directory = postgres_files.make_socket_directory(parent, uid)
    _replace(record, f"{directory}\n", os.geteuid())
    return directory


def _replace(path: Path, text: str, uid: int) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    if uid != os.geteuid():
        os.chown(new, uid, uid)
    new.replace(path)


def _owner_and_builder() -> tuple[int, pwd.struct_passwd]:
    """The user id that the server is to run under, and the account that makes its folder.

    They differ for root alone. The server then runs under a user id that has no name, and so nobody's processes but its
    own; initdb, alone among PostgreSQL's programs, insists on a name, and borrows a system account's.
    """
    if os.geteuid() != 0:
        try:
            return os.geteuid(), pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise EmbeddedServerError(
                f"the user id {os.geteuid()} has no name, and PostgreSQL needs one: add it to /etc/passwd, or set "
                "WETREAD_DATABASE_URL"
            ) from error
    accounts = pwd.getpwall()
    taken = {account.pw_uid for account in accounts}
    uid = next(uid for uid in _UNUSED_UIDS if uid not in taken)
    by_name = {account.pw_name: account for account in accounts if account.pw_uid != 0}
    for name in ("bin", "daemon", "sys", "nobody", *by_name):
        if name in by_name:
            return uid, by_name[name]
    raise EmbeddedServerError("the system has no account but root, and PostgreSQL refuses to run as root")
