"""How many objects a second the listener takes, over one association and over four, from DCMTK's storescu.

Run with ``python -m pytest tests/bench/bench_listener.py -s``. Sender, listener and database share the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from deploy.embedded_postgres import EmbeddedPostgres
from dicom_listener.association import Listener
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.migrations import migrate
from tests.peers import HOST, storescu


@pytest.fixture
def durable_database(tmp_path: Path) -> Iterator[Database]:
    """A database as users have it: it syncs."""
    server = EmbeddedPostgres(tmp_path / "home")
    server.start()
    database = Database(server.url)
    try:
        migrate(database)
        yield database
    finally:
        database.close()
        server.stop(even_if_used=True)


@pytest.mark.parametrize("associations", [1, 4])
def test_objects_per_second(durable_database: Database, tmp_path: Path, test_data: Path, associations: int) -> None:
    """The 170 slices of a real series go in, and the rate is printed."""
    listener = Listener(ListenerSettings(host=HOST, port=0), durable_database, Spool(tmp_path / "spool"))
    listener.start()
    paths = sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))
    statuses: list[int] = []

    def run(part: list[Path]) -> None:
        statuses.append(storescu(part, HOST, listener.port).status)

    threads = [threading.Thread(target=run, args=(paths[n::associations],)) for n in range(associations)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    listener.stop()
    assert statuses == [0] * associations
    with durable_database.session() as session:
        assert session.execute(select(func.count()).select_from(tables.Instance)).scalar_one() == len(paths)
    rate = f"{len(paths)} objects in {seconds:.2f} s, {len(paths) / seconds:.0f} a second"
    print(f"\n{associations} association(s): {rate}")
