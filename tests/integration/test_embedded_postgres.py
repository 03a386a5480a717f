"""The embedded PostgreSQL, as it is: real servers, real kills, a real stranger."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
import structlog
from psycopg.conninfo import make_conninfo

from deploy import embedded_postgres, unprivileged
from deploy.embedded_postgres import EmbeddedPostgres, lifetime
from deploy.postgres_files import ADMINISTRATOR, PORT, binaries
from fhir_records.errors import EmbeddedServerError

REPOSITORY = Path(__file__).parents[2]
USE = """
import sys
from pathlib import Path
from deploy.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print("started" if server.start() else "attached", flush=True)
sys.stdin.readline()
print("stopped" if server.stop() else "left running", flush=True)
"""
SERVE = """
import sys
from pathlib import Path
from deploy.embedded_postgres import EmbeddedPostgres
from deploy.supervise import RoleSpec, Supervisor
server = EmbeddedPostgres(Path(sys.argv[1]))
role = RoleSpec("role", (sys.executable, "-S", "-c", "import time; time.sleep(600)"))
watch = lambda: server.is_running() or server.start()
sys.exit(Supervisor([role], before=server.start, every_second=watch, after=server.stop).run())
"""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED LOUDLY: only root can play another user")


class User:
    """Another process that uses the database until it is told to leave."""

    def __init__(self, home: Path, *before: str) -> None:
        command = [*before, sys.executable, "-c", USE, str(home)]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def hear(self) -> str:
        """The last word of what it says next; log lines are passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() in {"started", "attached", "stopped", "left running"}:
                return line.strip()
        assert self.process.stderr is not None
        raise AssertionError(self.process.stderr.read())

    def leave(self) -> str:
        """Tell it to leave; what became of the server."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        try:
            return self.hear()
        finally:
            self.process.communicate()

    def kill(self) -> None:
        """End it without a chance to clean up."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def made_home() -> Iterator[Path]:
    """A home whose database was made and stopped, to copy from; it lies in a folder that is closed to others."""
    parent = Path(tempfile.mkdtemp(prefix="wetread-test-"))
    began = time.monotonic()
    server = EmbeddedPostgres(parent / "home")
    assert server.start()
    first = time.monotonic() - began
    began = time.monotonic()
    assert server.stop()
    stop = time.monotonic() - began
    began = time.monotonic()
    assert server.start()
    print(f"\nfirst start {first:.2f} s, stop {stop:.2f} s, start again {time.monotonic() - began:.2f} s")
    with admin(server) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # processes are killed here, no machine loses its power
    assert server.stop()
    yield parent / "home"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def running(made_home: Path) -> Iterator[EmbeddedPostgres]:
    """A server that runs, for tests that only look at it."""
    with fresh(lambda parent: copied(made_home, parent / "home")) as made:
        assert made.start()
        yield made


def copied(made_home: Path, home: Path) -> Path:
    """A copy of the home, owners included."""
    subprocess.run(["cp", "-a", str(made_home), str(home)], check=True)
    return home


@contextmanager
def fresh(make: Callable[[Path], Path]) -> Iterator[EmbeddedPostgres]:
    """A server object for a home that `make` makes in a short folder; whatever runs there at the end is stopped."""
    parent = Path(tempfile.mkdtemp(prefix="wetread-test-"))
    server = EmbeddedPostgres(make(parent))
    try:
        yield server
    finally:
        server.stop(even_if_used=True)
        shutil.rmtree(parent)


@pytest.fixture
def server(made_home: Path) -> Iterator[EmbeddedPostgres]:
    """A server that does not run yet; its database is made, and shared with other tests."""
    made = EmbeddedPostgres(made_home)
    yield made
    made.stop(even_if_used=True)


@pytest.fixture
def own_server(made_home: Path) -> Iterator[EmbeddedPostgres]:
    """A server that does not run yet, with a made database that the test may break."""
    with fresh(lambda parent: copied(made_home, parent / "home")) as made:
        yield made


@contextmanager
def admin(server: EmbeddedPostgres) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection as the superuser."""
    url = sqlalchemy.make_url(server.administrator_url)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(), autocommit=True) as connection:
        yield connection


@contextmanager
def connected(url: str) -> Iterator[sqlalchemy.Connection]:
    """A connection as the product makes it."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        yield connection


def postmaster_pid(server: EmbeddedPostgres) -> int:
    """The process id in the server's own file."""
    return int((server.home / "postgres/data/postmaster.pid").read_text().split()[0])


def socket_directory(server: EmbeddedPostgres) -> Path:
    """Where the socket lies, as clients are told."""
    return Path(str(sqlalchemy.make_url(server.url).query["host"]))


def as_stranger(act: Callable[[], object], uid: int) -> str:
    """What happens to another user without any privilege who does `act`: "done", or the name of the error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "died"
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            act()
            said = "done"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_two_processes_at_once_get_one_server(server: EmbeddedPostgres) -> None:
    """Of processes that start it at the same time one starts it, the others attach, and the last one out stops it."""
    users = [User(server.home) for _ in range(3)]
    assert sorted(user.hear() for user in users) == ["attached", "attached", "started"]
    assert [user.leave() for user in users] == ["left running", "left running", "stopped"]
    assert not server.is_running()


def test_killed_starter_leaves_a_server_to_attach_to(server: EmbeddedPostgres) -> None:
    """`kill -9` of who started it leaves it running; the next one attaches and, being alone, stops it."""
    starter = User(server.home)
    assert starter.hear() == "started"
    pid = postmaster_pid(server)
    starter.kill()
    assert server.is_running()
    assert server.start() is False
    assert postmaster_pid(server) == pid
    assert server.stop() is True


def test_starter_that_leaves_does_not_take_it_from_others(server: EmbeddedPostgres) -> None:
    """A one-shot command that started the server leaves it to a supervisor that came later."""
    one_shot = User(server.home)
    assert one_shot.hear() == "started"
    with lifetime(server.home) as url:
        assert one_shot.leave() == "left running"
        with connected(url) as connection:
            assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
    assert not server.is_running()


def test_stop_for_all_stops_it_under_its_users(server: EmbeddedPostgres) -> None:
    """Who must have it down, a restore for example, gets it down; stopping a stopped one is no error."""
    user = User(server.home)
    assert user.hear() == "started"
    assert server.stop() is False
    assert server.stop(even_if_used=True) is True
    assert not server.is_running()
    assert server.stop() is True
    user.kill()


def test_committed_rows_survive_a_killed_postmaster(server: EmbeddedPostgres) -> None:
    """After `kill -9` of the server the next start recovers what was committed."""
    assert server.start()
    with connected(server.url) as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE study (uid text)"))
        connection.execute(sqlalchemy.text("INSERT INTO study SELECT n FROM generate_series(1, 1000) n"))
    os.kill(postmaster_pid(server), signal.SIGKILL)
    assert server.start() is True
    with connected(server.url) as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM study")).scalar() == 1000


def test_a_server_killed_as_it_comes_up_is_started_again(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its first answer and the end of the start, it is started once more; not for ever."""
    greet, greeted = EmbeddedPostgres._greet, []

    def killing(self: EmbeddedPostgres) -> None:
        if len(greeted) < kills:
            os.kill(postmaster_pid(self), signal.SIGKILL)
        greeted.append(1)
        greet(self)

    monkeypatch.setattr(EmbeddedPostgres, "_greet", killing)
    kills = 1
    assert server.start() is True
    assert len(greeted) >= 2
    assert server.stop()
    greeted.clear()
    kills = 1000
    with pytest.raises(EmbeddedServerError, match="ended while it started"):
        server.start()


def test_orphans_of_a_killed_postmaster_are_waited_for(server: EmbeddedPostgres) -> None:
    """While a process of the killed server still lives, no second server opens its files."""
    assert server.start()
    with admin(server) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # it cannot see that the postmaster is gone
        os.kill(postmaster_pid(server), signal.SIGKILL)
        user = User(server.home)
        time.sleep(1)
        assert server.is_running()
        assert user.process.poll() is None
        os.kill(backend, signal.SIGCONT)
    assert user.hear() == "started"
    user.kill()


def test_recovery_is_waited_for_without_a_limit(own_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says that it recovers is not given up, though its starter was killed and nothing else answers."""
    data = own_server.home / "postgres/data"
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'sleep 1; false'\nhot_standby = off\n")
    (data / "recovery.signal").touch()
    os.chown(data / "recovery.signal", data.stat().st_uid, -1)
    monkeypatch.setattr(embedded_postgres, "_SILENCE_LIMIT_S", 0.5)
    monkeypatch.setattr(embedded_postgres, "_SAY_EVERY_S", 0.5)
    starter = User(own_server.home)
    while not (data / "postmaster.pid").exists():
        time.sleep(0.01)
    starter.kill()
    began = time.monotonic()
    with structlog.testing.capture_logs() as said:
        assert own_server.start() is False
    assert time.monotonic() - began > 1
    assert "embedded database starts up or recovers" in [event["event"] for event in said]


def test_supervisor_keeps_it_running_and_stops_it_last(server: EmbeddedPostgres) -> None:
    """A server killed under `wetread serve` is started again, and a clean stop of the supervisor stops it."""
    with subprocess.Popen([sys.executable, "-c", SERVE, str(server.home)], cwd=REPOSITORY) as supervisor:

        def answers() -> bool:
            try:
                with connected(server.url) as connection:
                    return connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
            except sqlalchemy.exc.OperationalError:
                return False

        def wait_for_answer() -> None:
            deadline = time.monotonic() + 180
            while not answers():
                assert time.monotonic() < deadline
                time.sleep(0.1)

        wait_for_answer()
        killed = postmaster_pid(server)
        os.kill(killed, signal.SIGKILL)
        wait_for_answer()
        assert postmaster_pid(server) != killed
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(180) == 0
    assert not server.is_running()


def test_pid_file_with_another_programs_pid_is_stale(server: EmbeddedPostgres) -> None:
    """After a restart of the machine the number in the pid file may be another program's, which is spared."""
    assert server.start()
    os.kill(postmaster_pid(server), signal.SIGKILL)
    while server.is_running():
        time.sleep(0.02)
    data = server.home / "postgres/data"
    uid = data.stat().st_uid  # PostgreSQL takes only a process that it may signal for a running server
    with subprocess.Popen(["sleep", "20"], user=uid) as other:
        for file in (data / "postmaster.pid", socket_directory(server) / f".s.PGSQL.{PORT}.lock"):
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join([f"{other.pid}\n", *lines[1:]]))
        assert not server.is_running()
        assert server.start() is True
        assert postmaster_pid(server) != other.pid
        assert server.stop() is True
        assert other.poll() is None
        other.kill()


def test_half_made_database_is_made_anew() -> None:
    """A first start that was killed in the middle leaves nothing that the next one stumbles over."""
    with fresh(lambda parent: parent / "home") as server:
        half = server.home / "postgres/new-killed"
        half.mkdir(parents=True, mode=0o700)
        (half / "PG_VERSION").write_text("18\n")
        assert server.start()
        assert not half.exists()


def test_data_of_another_major_version_is_refused_in_words(own_server: EmbeddedPostgres) -> None:
    """Files of another PostgreSQL are not touched; the message says what to do."""
    (own_server.home / "postgres/data/PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedServerError, match=r"made by PostgreSQL 17.*back up"):
        own_server.start()


def test_broken_database_is_an_error_and_no_endless_wait(own_server: EmbeddedPostgres) -> None:
    """A server that ends while it starts is reported with the place of its log."""
    (own_server.home / "postgres/data/global/pg_control").unlink()
    with pytest.raises(EmbeddedServerError, match=r"ended while it started: .*postgres/log"):
        own_server.start()
    assert not own_server.is_running()


@pytest.mark.parametrize("name", ["h" * 120, "with, comma and 'quote'", "mit Umläuten:@"])
def test_home_with_an_awkward_path(made_home: Path, name: str) -> None:
    """A home too long for a socket's path, or with characters that a URL takes apart, works like any other."""
    with fresh(lambda parent: copied(made_home, parent / name)) as server:
        assert server.start()
        elsewhere = socket_directory(server)
        assert elsewhere.stat().st_mode & 0o777 == 0o700
        assert server.home not in elsewhere.parents
        with connected(server.url) as connection:
            assert connection.execute(sqlalchemy.text("SELECT current_user")).scalar() == "wetread"
        assert server.stop()
        assert server.start()
        assert socket_directory(server) == elsewhere
        assert server.stop()
        shutil.rmtree(elsewhere)


def test_no_folder_outside_is_opened(made_home: Path) -> None:
    """The home's parents and the home keep their modes, and everything below is closed to others."""

    def copy(parent: Path) -> Path:
        parent.joinpath("closed").mkdir(mode=0o700)
        return copied(made_home, parent / "closed/home")

    with fresh(copy) as server:
        above = [server.home, *server.home.parents]
        before = [(path.stat().st_mode, path.stat().st_uid) for path in above]
        assert server.start()
        assert [(path.stat().st_mode, path.stat().st_uid) for path in above] == before
        assert (server.home / "postgres").stat().st_mode & 0o777 == 0o700
        assert not [path for path in (server.home / "postgres").rglob("*") if path.lstat().st_mode & 0o077]


def test_server_listens_on_no_network(running: EmbeddedPostgres) -> None:
    """There is no TCP port, and no way in but `peer`."""
    with admin(running) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        rules = connection.execute("SELECT type, auth_method, options FROM pg_hba_file_rules").fetchall()
    assert rules == [("local", "peer", ["map=wetread"])]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=PORT, user=ADMINISTRATOR, dbname="postgres", connect_timeout=3)


@only_root
def test_stranger_does_not_reach_the_socket(running: EmbeddedPostgres) -> None:
    """Another user of the machine cannot even open the socket, wherever it lies."""
    path = str(socket_directory(running) / f".s.PGSQL.{PORT}")

    def knock() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    stranger = pwd.getpwnam("nobody").pw_uid
    running.home.parent.chmod(0o711)
    running.home.chmod(0o711)
    assert as_stranger(knock, stranger).startswith("PermissionError")
    (running.home / "postgres").chmod(0o711)
    assert as_stranger(knock, stranger).startswith("PermissionError")


@only_root
@pytest.mark.parametrize("role", [ADMINISTRATOR, "wetread", "nobody"])
def test_stranger_at_the_socket_is_refused(running: EmbeddedPostgres, role: str) -> None:
    """Were every folder open, the server would still know by the user id that it is not its owner."""
    stranger = str(pwd.getpwnam("nobody").pw_uid)
    conninfo = make_conninfo("", host=str(socket_directory(running)), port=PORT, user=role, dbname="postgres")
    done = subprocess.run(
        [
            *(sys.executable, "-I", unprivileged.__file__, stranger, stranger, str(unprivileged.CAP_DAC_OVERRIDE)),
            *(sys.executable, "-c", "import psycopg, sys; psycopg.connect(sys.argv[1])", conninfo),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Peer authentication failed" in done.stderr or "no pg_ident.conf entry" in done.stderr


@only_root
def test_root_runs_it_as_nobody_that_exists(running: EmbeddedPostgres) -> None:
    """For root the server has a user id that no account has, and the one capability that lets it read its files."""
    status = Path(f"/proc/{postmaster_pid(running)}/status").read_text()
    lines = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert len(set(lines["Uid"])) == 1
    with pytest.raises(KeyError):
        pwd.getpwuid(int(lines["Uid"][0]))
    assert lines["Groups"] == []
    assert int(lines["CapEff"][0], 16) in {1 << unprivileged.CAP_DAC_READ_SEARCH, 1 << unprivileged.CAP_DAC_OVERRIDE}


@only_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="SKIPPED LOUDLY: setpriv (util-linux) is not installed")
def test_root_in_a_container_with_fewer_capabilities(server: EmbeddedPostgres) -> None:
    """Root without CAP_DAC_READ_SEARCH, as in Docker, starts it too; without any way it says what to do."""
    user = User(server.home, "setpriv", "--bounding-set", "-dac_read_search")
    assert user.hear() == "started"
    assert user.leave() == "stopped"
    user = User(server.home, "setpriv", "--bounding-set", "-dac_override")
    with pytest.raises(AssertionError, match=r"run Wetread as a user of its own, or set WETREAD_DATABASE_URL"):
        user.hear()
    user.kill()


@only_root
def test_unprivileged_user_runs_a_server_that_root_does_not_take_over() -> None:
    """A user without privileges makes, starts and stops a server under their own id; root is told to be that user."""
    uid = pwd.getpwnam("daemon").pw_uid
    with tempfile.TemporaryDirectory(prefix="wetread-test-") as parent:
        os.chown(parent, uid, uid)
        server = EmbeddedPostgres(Path(parent) / "home")

        def story() -> None:
            assert os.access(binaries() / "postgres", os.X_OK), "unreachable"
            assert server.start()
            assert (server.home / "postgres/data").stat().st_uid == uid
            with connected(server.url) as connection:
                assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
            assert server.stop()

        said = as_stranger(story, uid)
        if "unreachable" in said:
            pytest.skip("SKIPPED LOUDLY: other users cannot reach the virtual environment")
        assert said == "done"
        with pytest.raises(EmbeddedServerError, match="run Wetread as that user"):
            server.start()


def test_database_is_safe_and_plain(running: EmbeddedPostgres) -> None:
    """Checksums, UTF-8, code-point order, UTC, and commits that wait for the disk."""
    with admin(running) as connection:
        connection.execute("ALTER SYSTEM RESET fsync")
        connection.execute("SELECT pg_reload_conf()")
    names = ("data_checksums", "server_encoding", "TimeZone", "fsync", "synchronous_commit", "full_page_writes")
    with connected(running.url) as connection:
        values = [connection.execute(sqlalchemy.text(f"SHOW {name}")).scalar() for name in names]
        assert values == ["on", "UTF8", "UTC", "on", "on", "on"]
        in_order = sqlalchemy.text("SELECT string_agg(w, '' ORDER BY w) FROM unnest(ARRAY['a', 'B', 'ä']) w")
        assert connection.execute(in_order).scalar() == "Baä"


def test_products_role_is_no_superuser(running: EmbeddedPostgres) -> None:
    """SQL that slips in through the product's role reads no file and makes no role."""
    for statement in ("SELECT pg_read_file('/etc/passwd')", "CREATE ROLE thief", "COPY (SELECT 1) TO PROGRAM 'true'"):
        with pytest.raises(sqlalchemy.exc.ProgrammingError, match="permission denied"), connected(running.url) as to:
            to.execute(sqlalchemy.text(statement))


def test_log_quotes_no_values(server: EmbeddedPostgres) -> None:
    """Statements that fail with a patient's data leave none of it in the server's log."""
    assert server.start()
    with connected(server.url) as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE patient (name text PRIMARY KEY, born date)"))
        connection.execute(sqlalchemy.text("INSERT INTO patient VALUES ('DOE^JANE')"))
    insert = "INSERT INTO patient VALUES (:name, CAST(:born AS date))"
    for name, born in (("DOE^JANE", None), ("ROE^RICHARD", "DOE^JANE")):
        with pytest.raises(sqlalchemy.exc.DBAPIError), connected(server.url) as connection:
            connection.execute(sqlalchemy.text(insert), {"name": name, "born": born})
    with pytest.raises(sqlalchemy.exc.DBAPIError), connected(server.url) as connection:
        connection.exec_driver_sql("SELECT 'DOE^JANE'::integer")
    assert server.stop()
    written = "".join(path.read_text() for path in server.log_directory.iterdir())
    written += (server.home / "postgres/startup.log").read_text()
    assert "database system is shut down" in written
    assert "JANE" not in written
    assert "RICHARD" not in written


def test_url_before_the_first_start_is_an_error(tmp_path: Path) -> None:
    """There is no database to name before one was made."""
    with pytest.raises(EmbeddedServerError, match="never started"):
        _ = EmbeddedPostgres(tmp_path).url
    assert EmbeddedPostgres(tmp_path).is_running() is False
    assert EmbeddedPostgres(tmp_path).stop() is True
