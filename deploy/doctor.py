"""``wetread doctor``: what is wrong with this installation, in words, and what to do about it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import func, select

from deploy import wiring, work
from deploy.settings import Settings
from dicom_listener import certificates, orthanc, sender, tls
from fhir_records import jobs, migrations, tables
from fhir_records.database import Database
from fhir_records.errors import SettingsError, WetreadError
from fhir_records.model import DeliveryState, ReadState, Standing
from inference.registry import Registry


class Verdict(StrEnum):
    """How bad it is."""

    GOOD = "good"
    LOOK = "look"  # nothing is lost; a person should look
    BAD = "bad"  # something does not work


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    words: str


def examine(settings: Settings, database: Database) -> Iterator[Check]:
    """Look at everything, one check after another; a check that breaks is itself a finding."""
    checks: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("schema", lambda: _schema(database)),
        ("spool", lambda: _spool(settings)),
        ("models", lambda: _models(settings)),
        ("certificates", lambda: certificate_checks(settings)),
        ("record", lambda: _record(database)),
        ("peers", lambda: _peers(settings)),
    )
    for name, look in checks:
        try:
            yield from look()
        except (WetreadError, OSError) as error:
            yield Check(name, Verdict.BAD, str(error))


def _schema(database: Database) -> Iterator[Check]:
    migrations.check(database)
    yield Check("database", Verdict.GOOD, "answers, and its schema is this version's")


def _spool(settings: Settings) -> Iterator[Check]:
    spool = wiring.spool_of(settings)
    spool.check_space()
    free = shutil.disk_usage(settings.home).free / 2**30
    yield Check("disk", Verdict.GOOD, f"{free:.1f} GiB free for {settings.spool}")


def _models(settings: Settings) -> Iterator[Check]:
    registered = Registry(settings.models).list()
    if not registered:
        yield Check("models", Verdict.BAD, "none is registered; `wetread serve` registers those that come with it")
        return
    work.router_of(settings, registered)
    names = ", ".join(f"{model.name} {model.version}" for model in registered)
    yield Check("models", Verdict.GOOD, names)
    yield Check("routes", Verdict.GOOD, f"{len(settings.file.route)} configured" if settings.file.route else "default")
    if not wiring.viewer_is_built():
        yield Check("viewer", Verdict.LOOK, "is not built, pages show no images: `make viewer`")


def certificate_checks(settings: Settings) -> Iterator[Check]:
    """Look at the files of TLS, the listener's and each destination's."""
    for use, files in wiring.tls_files(settings):
        what = "TLS" if use == "listener" else f"TLS to {use}"
        try:
            found = [*certificates.faults(files, wiring.now(), _own_hosts(settings))]
            for fault in found:
                yield Check(what, Verdict.LOOK if fault.works else Verdict.BAD, fault.words)
            if all(fault.works for fault in found):
                # What this program's reading of the files found nothing in may still not please OpenSSL.
                tls.usable(files)
            ends = [end.at for end in certificates.expiries(files)]
        except SettingsError as error:
            yield Check(what, Verdict.BAD, str(error))
            continue
        if not found:
            words = f"good until {min(ends).date().isoformat()}" if ends else "certificates of the system are trusted"
            yield Check(what, Verdict.GOOD, words)


def _own_hosts(settings: Settings) -> tuple[str, ...]:
    """How callers may call this machine, as far as it knows."""
    given = settings.file.dicom.host
    if given not in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not listened on
        return (given,)
    names = dict.fromkeys((socket.gethostname(), socket.getfqdn()))
    with suppress(OSError):
        names |= dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None))
    return tuple(names)


def _record(database: Database) -> Iterator[Check]:
    with database.session() as session:
        failed = jobs.failed_jobs(session)
        reads = session.scalar(select(func.count()).where(tables.Read.state == ReadState.FAILED)) or 0
        refused = session.scalar(select(func.count()).where(tables.Delivery.state == DeliveryState.REFUSED)) or 0
        waiting = session.scalar(select(func.count()).where(tables.Delivery.state == DeliveryState.WAITING)) or 0
        held = session.scalar(select(func.count()).where(tables.Study.hold_reason.is_not(None))) or 0
        conflicts = session.scalar(select(func.count()).where(tables.Instance.standing == Standing.CONFLICT)) or 0
        quarantined = session.scalar(select(func.count()).select_from(tables.QuarantinedObject)) or 0
        workers = jobs.living_workers(session)
    for job in failed[:20]:
        ids = ", ".join(f"{key} {value}" for key, value in job.ids.items())
        yield Check(f"job {job.id}", Verdict.BAD, f"{job.name} ({ids}) was given up; try again on the page /admin")
    yield _count("jobs given up", len(failed), "none")
    yield _count("failed reads", reads, "none", "try again on the page /admin")
    yield _count("refused deliveries", refused, "none", "the destination said no; see /admin")
    yield _count("waiting deliveries", waiting, "none", "they go out when the destination answers")
    yield _count("held studies", held, "none", "whose patient a person must settle")
    yield _count("conflicting objects", conflicts, "none", "other pixels under a known SOP Instance UID")
    yield _count("quarantined objects", quarantined, "none", "could not be stored as DICOM; see /admin")
    yield Check(
        "workers",
        Verdict.GOOD if workers else Verdict.LOOK,
        "alive" if workers else "none is alive; `wetread serve` or `wetread work` starts one",
    )


def _count(what: str, number: int, none: str, advice: str = "") -> Check:
    if not number:
        return Check(what, Verdict.GOOD, none)
    return Check(what, Verdict.LOOK, f"{number}{': ' + advice if advice else ''}")


def _peers(settings: Settings) -> Iterator[Check]:
    for entry in settings.file.destination:
        node = wiring.node_of(settings, entry)
        node = replace(node, timeout_s=min(10, node.timeout_s))
        try:
            sender.echo(node, wiring.sender_settings(settings))
        except WetreadError as error:
            yield Check(f"destination {entry.name}", Verdict.BAD, str(error))
        else:
            yield Check(f"destination {entry.name}", Verdict.GOOD, "answers C-ECHO")
    for archive in settings.file.orthanc:
        try:
            orthanc.changes_since(work.orthanc_node(settings, archive.name), 0, limit=1)
        except WetreadError as error:
            yield Check(f"orthanc {archive.name}", Verdict.BAD, str(error))
        else:
            yield Check(f"orthanc {archive.name}", Verdict.GOOD, "answers")
