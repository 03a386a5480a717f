"""`wetread serve` in an administrator's hands: commands beside it, reload, doctor, stop."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.phantom import phantom_study, write_study
from tests.peers import echoscu
from tests.service import Service, processes_of, running, until


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, registered_models: Path) -> Iterator[Service]:
    """A running Wetread."""
    folder = tmp_path_factory.mktemp("serve") / "home"
    shutil.copytree(registered_models, folder / "models")
    with running(folder) as started:
        yield started


def test_it_answers_on_its_ports(service: Service) -> None:
    """C-ECHO is answered by the AE title that is called, liveness, readiness and metrics by the pages."""
    assert echoscu("127.0.0.1", service.dicom_port, called="WETREAD").status == 0
    assert echoscu("127.0.0.1", service.dicom_port, called="SOMEBODY").status != 0
    assert httpx.get(f"{service.url}/health/live").status_code == 200
    assert "wetread_workers_alive 4.0" in httpx.get(f"{service.url}/metrics").text


def test_the_first_administrator_logs_in(service: Service) -> None:
    """An account made on the command line opens the worklist; without one there is only the log-in."""
    made = service.run("users", "add", "anna", "--role", "admin", "--password-stdin", stdin="correct horse 42\n")
    assert made.returncode == 0, made.stderr
    with httpx.Client(base_url=service.url, follow_redirects=True) as browser:
        page = browser.get("/")
        assert page.url.path == "/login"
        found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        assert found is not None
        form = {"username": "anna", "password": "correct horse 42", "csrf_token": found.group(1)}
        page = browser.post("/login", data=form, headers={"Origin": service.url})
        assert page.url.path == "/"
        assert "Worklist" in page.text
        assert "No studies yet" in page.text


def test_a_password_that_is_too_short_is_refused(service: Service) -> None:
    """The command says what is allowed, and makes no account."""
    made = service.run("users", "add", "bob", "--password-stdin", stdin="short\n")
    assert made.returncode == 1
    assert "at least 12 are needed" in made.stderr
    assert "bob" not in service.run("users", "list").stdout


def test_a_token_is_printed_alone_and_can_be_revoked(service: Service) -> None:
    """`tokens create` prints the token and nothing else; a revoked one opens nothing."""
    created = service.run("tokens", "create", "--name", "ehr", "--scope", "system/*.rs")
    assert re.fullmatch(r"\S+\n", created.stdout)
    headers = {"Authorization": f"Bearer {created.stdout.strip()}"}
    assert httpx.get(f"{service.url}/fhir/Patient", headers=headers).status_code == 200
    assert service.run("tokens", "revoke", "ehr").returncode == 0
    refused = httpx.get(f"{service.url}/fhir/Patient", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["resourceType"] == "OperationOutcome"


def test_a_wrong_scope_is_refused(service: Service) -> None:
    """A scope that is not SMART v2 makes no token and is named."""
    created = service.run("tokens", "create", "--name", "bad", "--scope", "everything")
    assert created.returncode == 1
    assert created.stdout == ""
    assert "everything" in created.stderr


def test_doctor_says_what_is_good_and_what_is_not(service: Service) -> None:
    """On a sound installation the exit status is 0; a destination that does not answer is named and makes it 1."""
    sound = service.run("doctor")
    assert sound.returncode == 0, sound.stdout
    assert "brain_mr_tumour" in sound.stdout
    path = service.home / "other.toml"
    path.write_text('[[destination]]\nname = "pacs"\nae_title = "X"\nhost = "127.0.0.1"\nport = 9\n')
    broken = service.run("doctor", "--config", str(path))
    assert broken.returncode == 1
    assert "destination pacs" in broken.stdout


def test_the_index_is_rebuilt_from_the_files(service: Service, tmp_path: Path) -> None:
    """`doctor --reindex` finds every stored file again, with a row for each."""
    files = write_study(phantom_study(seed=2, slices=8, lesion=False), tmp_path)
    sent = service.run("send", str(tmp_path), "--to", f"WETREAD@127.0.0.1:{service.dicom_port}")
    assert sent.returncode == 0, sent.stdout
    with service.database() as database, database.session() as session:
        session.connection().exec_driver_sql("TRUNCATE instance, revision, revision_instance CASCADE")
    done = service.run("doctor", "--reindex")
    assert f"{len(files)} indexed anew" in re.sub(r"\s+", " ", done.stdout), done.stdout


def test_a_wrong_configuration_changes_nothing_at_reload(service: Service) -> None:
    """SIGHUP with a file that is not valid leaves every role as it is; with a valid one the roles are renewed."""
    assert service.process is not None
    path = service.home / "wetread.toml"
    good = path.read_text()
    before = {role: service.pids(role) for role in ("listen", "work", "web")}
    path.write_text(good + "\n[dicom2]\nport = 1\n")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "dicom2" in service.log(), what="the complaint")
    assert {role: service.pids(role) for role in before} == before
    path.write_text(good)
    service.process.send_signal(signal.SIGHUP)
    until(lambda: all(service.pids(role) not in ([], before[role]) for role in before), what="the renewed roles")
    service.wait_ready()


def test_it_stops_in_order_and_leaves_nothing(service: Service) -> None:
    """SIGTERM ends all roles and the database; the exit status is 0."""
    assert service.stop() == 0
    assert processes_of(service.home) == []
    assert list(service.home.rglob("postmaster.pid")) == []
