"""The embedded PostgreSQL: a server of one's own under WETREAD_HOME, for its owner alone.

Who may rely on what:

- It listens on a UNIX socket in a folder that only its owner enters, never on TCP; it believes nobody's word, only the
  user id that the kernel reports (`peer`), and knows that one user id only.
- It outlives the process that started it. Whoever uses it holds a shared lock (`users`) that the kernel drops with the
  process; the last one out stops the server, so a killed user leaves a server that the next one attaches to.
- Whether it runs is asked of a lock as well (`server`), which the server's processes inherit and the kernel drops with
  the last of them. A process id in `postmaster.pid` proves nothing: after a restart it may be another program's.
- For root, it runs under a user id that nobody has, because PostgreSQL refuses root, with the one capability that it
  needs to reach its files; no permission of any folder is widened for it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from deploy import postgres_cluster, postgres_files
from deploy.postgres_files import ADMINISTRATOR, DATABASE, PORT, ROLE
from fhir_records.errors import EmbeddedServerError

log = structlog.get_logger(__name__)

_POLL_S = 0.02
_SAY_EVERY_S = 10.0  # how often a long wait is logged
_MOST_STARTS = 3  # of a server that answers and then dies before it is used
_SILENCE_LIMIT_S = 30.0  # how long a server that others started may say nothing at all, not even "starting up"
_LOCK_FD = 9  # as which the server inherits its lock


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """The server of one WETREAD_HOME. Keep the object for as long as the server is used: it holds the claim on it."""

    home: Path  # WETREAD_HOME
    _claims: list[BinaryIO] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The database for SQLAlchemy, as its owner `wetread`, which is no superuser.

        Raises EmbeddedServerError where the server was never started.
        """
        return self._url(ROLE, DATABASE)

    @property
    def administrator_url(self) -> str:
        """The database `postgres` as the superuser: to create, drop and restore databases."""
        return self._url(ADMINISTRATOR, "postgres")

    @property
    def log_directory(self) -> Path:
        """Where the server writes what happens to it, one file a weekday."""
        return self._folder / "log"

    def start(self) -> bool:
        """Attach to the server, or make and start it, and claim it; True where this call started it.

        Returns when it answers `SELECT 1`. While it says that it is starting up or recovering there is no time limit.
        Raises EmbeddedServerError.
        """
        with _explained("started"):
            self._prepare_folder()
            with self._alone():
                started = self._start_or_attach()
                if not self._claims:
                    self._claims.append(_lock(self._folder / "users", fcntl.LOCK_SH))
        log.info("embedded database is ready", started=started)
        return started

    def stop(self, *, even_if_used: bool = False) -> bool:
        """Give up the claim and shut the server down (`fast`), waiting for it; no error where it is not running.

        Where other processes still use it, it is left to them, and the last one stops it, unless `even_if_used`.
        Returns True where it is down now. Raises EmbeddedServerError.
        """
        if not self._folder.is_dir():
            return True
        with _explained("stopped"), self._alone():
            while self._claims:
                self._claims.pop().close()
            last_user = _try_lock(self._folder / "users", fcntl.LOCK_EX)
            if last_user is None and not even_if_used and self.is_running():
                log.info("embedded database is left running for others who use it")
                return False
            try:
                self._shut_down()
            finally:
                if last_user is not None:
                    last_user.close()
        log.info("embedded database is stopped")
        return True

    def is_running(self) -> bool:
        """Whether any process of the server lives, be it starting up or shutting down."""
        if not self._folder.is_dir():
            return False
        free = _try_lock(self._folder / "server", fcntl.LOCK_SH)
        if free is None:
            return True
        free.close()
        return False

    @property
    def _folder(self) -> Path:
        return self.home.resolve() / "postgres"  # resolved, for the server is recognised by its folder's path

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _socket_directory(self) -> Path:
        try:
            return Path((self._folder / "socket_directory").read_text(encoding="utf-8").strip())
        except OSError as error:
            raise EmbeddedServerError("the embedded database was never started here") from error

    def _url(self, role: str, database: str) -> str:
        host = quote(str(self._socket_directory()), safe="")
        return f"postgresql+psycopg://{role}@/{database}?host={host}&port={PORT}"

    def _conninfo(self, role: str, database: str) -> str:
        host = str(self._socket_directory())
        return make_conninfo("", host=host, port=PORT, user=role, dbname=database, connect_timeout=10)

    def _prepare_folder(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found = self._folder.lstat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            raise EmbeddedServerError(
                f"{self._folder} is not a folder of user id {os.geteuid()}, who runs Wetread now: it belongs to "
                f"{found.st_uid}; run Wetread as that user"
            )
        if found.st_mode & 0o777 != 0o700:
            self._folder.chmod(0o700)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes, starts or stops the server."""
        path = self._folder / "lock"
        lock = _try_lock(path, fcntl.LOCK_EX)
        if lock is None:
            log.info("waiting for another process that starts or stops the embedded database")
            lock = _lock(path, fcntl.LOCK_EX)
        with lock:
            yield

    def _start_or_attach(self) -> bool:
        """Bring the server to where it answers; True where this call launched it. The caller is alone."""
        child: int | None = None
        starts, answered = 0, False
        refusal: psycopg.OperationalError | None = None
        began = said = heard = time.monotonic()
        while True:
            lifeline = _try_lock(self._folder / "server", fcntl.LOCK_EX)
            if lifeline is not None:  # no process of the server lives
                with lifeline:
                    if child is not None:
                        reason = self._why_it_ended(child)
                        if not answered or starts >= _MOST_STARTS:
                            raise EmbeddedServerError(reason)
                        # It was well, and was killed: for want of memory, or by a person.
                        log.warning("embedded database died as it came up and is started again", reason=reason)
                    child = self._launch(lifeline)
                    starts, answered = starts + 1, False
            now = time.monotonic()
            answer = self._ping()
            if answer is Ping.OK:
                answered = True
                try:
                    self._greet()
                    return child is not None
                except psycopg.OperationalError as error:
                    refusal = error  # perhaps it began to shut down, or crashed and recovers: ask again
            elif answer is Ping.REJECT or child is not None:
                heard = now
            if now - heard > _SILENCE_LIMIT_S:
                raise EmbeddedServerError(
                    f"a PostgreSQL holds {self._data} and does not answer: {refusal or 'no socket'}; is it run by "
                    "another container or machine?"
                ) from refusal
            if now - said > _SAY_EVERY_S:
                said = now
                log.info("embedded database starts up or recovers", waited_s=round(now - began))
            time.sleep(_POLL_S)

    def _ping(self) -> Ping:
        if not (self._folder / "socket_directory").exists():
            return Ping.NO_RESPONSE
        return Ping(PGconn.ping(self._conninfo(ROLE, DATABASE).encode()))

    def _greet(self) -> None:
        """`SELECT 1`, as the product will ask it; the role and the database are made where they are not there yet."""
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        with psycopg.connect(self._conninfo(ADMINISTRATOR, "postgres"), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
        with psycopg.connect(self._conninfo(ROLE, DATABASE), autocommit=True) as connection:
            connection.execute("SELECT 1")

    def _launch(self, lifeline: BinaryIO) -> int:
        """Start the server as a process of its own that inherits the lock `lifeline`; its process id."""
        postgres_cluster.check_privileges()
        if not (self._data / "PG_VERSION").exists():
            log.info("making the embedded database")
            postgres_cluster.make(self._data)
        uid = postgres_cluster.prepare(self._data)
        environment = dict(postgres_cluster.ENVIRONMENT)
        if (stale := self._postmaster_pid()) is not None:
            _reap(stale)
            # No process of the server lives, so the process id in its file is nobody's or another program's. PostgreSQL
            # would take a live one for a running server, but not that of a grandparent, which is how pg_ctl names its
            # own starter. To remove the file would remove its guard against shared memory still in use as well.
            environment["PG_GRANDPARENT_PID"] = str(stale)
        postgres = str(postgres_files.binaries() / "postgres")
        command = [*postgres_cluster.as_user(uid, uid), postgres, "-D", str(self._data)]
        startup_log = self._folder / "startup.log"
        startup_log.touch(mode=0o600)
        with startup_log.open("wb") as output:
            return os.posix_spawn(
                command[0],
                command,
                environment,
                setsid=True,  # Ctrl-C in the starter's terminal is not meant for the server
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
                    (os.POSIX_SPAWN_DUP2, lifeline.fileno(), _LOCK_FD),
                ],
            )

    def _why_it_ended(self, child: int) -> str:
        _reap(child)
        lines = (self._folder / "startup.log").read_text(encoding="utf-8", errors="replace").splitlines()
        said = next((line for line in lines if "FATAL" in line or "cannot run" in line), "")
        return f"the embedded PostgreSQL ended while it started: {said or 'see its log'} ({self.log_directory})"

    def _shut_down(self) -> None:
        """Ask the server to end, as soon as its process is known, and wait until its last process has."""
        asked: int | None = None
        began = said = time.monotonic()
        while self.is_running():
            pid = self._postmaster_pid()
            if asked is None and pid is not None and self._is_postmaster(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)  # "fast": rolls transactions back and writes a checkpoint
                asked = pid
            now = time.monotonic()
            if asked is None and now - began > _SILENCE_LIMIT_S:
                raise EmbeddedServerError(f"the process that holds {self._data} is not on this machine")
            if now - said > _SAY_EVERY_S:
                said = now
                log.info("embedded database shuts down", waited_s=round(now - began))
            time.sleep(_POLL_S)
        if asked is not None:
            _reap(asked)

    def _postmaster_pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")[0])
        except (FileNotFoundError, ValueError):
            return None

    def _is_postmaster(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return Path(os.fsdecode(arguments[0])).name == "postgres" and os.fsencode(self._data) in arguments


@contextmanager
def lifetime(home: Path) -> Iterator[str]:
    """The database's URL for the length of a `with` block: attaches, or starts it; the last user stops it."""
    server = EmbeddedPostgres(home)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _lock(path: Path, kind: int) -> BinaryIO:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(file, kind)
    except BaseException:
        file.close()
        raise
    return file


def _try_lock(path: Path, kind: int) -> BinaryIO | None:
    """The locked file, or None where another process holds it."""
    try:
        return _lock(path, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _reap(pid: int) -> None:
    """Take note of the end of a server that this very process had started, so that no zombie stays."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@contextmanager
def _explained(done: str) -> Iterator[None]:
    try:
        yield
    except (OSError, psycopg.Error) as error:
        raise EmbeddedServerError(f"the embedded PostgreSQL could not be {done}: {error}") from error
