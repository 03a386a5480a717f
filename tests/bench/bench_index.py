"""How fast the index follows: objects a second from their notes to their rows, into an empty index and a full one.

Run it: ``python -m tests.bench.bench_index [--objects N] [--full N]``. One process writes; the files lie in the page
cache, as they do when an acceptor has just written them.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import tempfile
import time
import uuid
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from sqlalchemy import text

from deploy.embedded_postgres import EmbeddedPostgres
from dicom_listener.examination import Examination
from dicom_listener.handover import Opened, Seen, Stored
from dicom_listener.index_keeper import IndexKeeper, utc_now
from dicom_listener.received import file_header
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.migrations import migrate
from fhir_records.store.associations import OpenAssociation
from tests.unit.dicom_listener.objects import encoded, image, received

_STUDY_IMAGES = 200


def template() -> Dataset:
    """A slice of 256 by 256 pixels in 16 bits, 131 kB."""
    return image(Rows=256, Columns=256, PixelData=bytes(range(256)) * 512)


def put(spool: Spool, ds: Dataset, objects: int) -> list[tuple[str, Seen]]:
    """Store so many objects of new studies; their keys, and what an acceptor sees of them."""
    keys, study_uid = [], ""
    for number in range(objects):
        if number % _STUDY_IMAGES == 0:
            study_uid = generate_uid()
        ds = copy.copy(ds)
        ds.StudyInstanceUID, ds.SOPInstanceUID, ds.InstanceNumber = study_uid, generate_uid(), number
        how = received(ds, received_at=utc_now())
        head, data = file_header(how), encoded(ds, ExplicitVRLittleEndian)
        examination = Examination(ExplicitVRLittleEndian)
        examination.feed(data)
        examination.finish()
        told = ExplicitVRLittleEndian, how.caller, how.received_at, examination.header, examination.pixels
        keys.append((spool.store([head, data], how.received_at).key, Seen(len(head) + len(data), *told)))
    return keys


def fill(database: Database, rows: int) -> None:
    """Make an index of so many objects whose files nobody ever asks for."""
    with database.session() as session:
        session.execute(text("INSERT INTO patient (patient_uid, name, sex) VALUES ('P', '', '')"))
        session.execute(
            text(
                "INSERT INTO study (study_uid, patient_id, accession_number, description, modalities, priority,"
                " source, caller, revision, routed_revision)"
                " SELECT '1.2.3.' || n, (SELECT min(id) FROM patient), '', '', '{MR}',"
                " 'routine', 'dicom:FILL', 'FILL', 1, 1 FROM generate_series(1, :studies) n"
            ),
            {"studies": rows // _STUDY_IMAGES},
        )
        session.execute(
            text(
                "INSERT INTO instance (study_id, series_uid, sop_uid, sop_class_uid, transfer_syntax_uid, kind,"
                " standing, modality, series_description, number_of_frames, file_key, sha256, demographics_sha256,"
                " pixels_sha256, size, source, received_at, missing_since)"
                " SELECT (SELECT min(id) FROM study WHERE caller = 'FILL') + n / :each, '1.2.4.' || n / :each,"
                " '2.25.' || ('x' || substr(md5(n::text), 1, 15))::bit(60)::bigint || n, '1.2.840.10008.5.1.4.1.1.4',"
                " '1.2.840.10008.1.2.1', 'image', 'current', 'MR', '', 1,"
                " 'objects/2026-01-01/' || md5(n::text) || '.dcm', md5(n::text), '', '', 131072, 'dicom:CT1',"
                " timestamptz '2026-01-01' + n * interval '1 second', now() FROM generate_series(0, :rows - 1) n"
            ),
            {"rows": rows, "each": _STUDY_IMAGES},
        )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def rate(database: Database, spool: Spool, keys: list[tuple[str, Seen]]) -> tuple[float, float]:
    """Objects a second from note to row, and milliseconds of this process's time for each."""
    keeper = IndexKeeper(ListenerSettings(), database, spool)
    keeper._backlog = False
    keeper.start()
    association = OpenAssociation(uuid.uuid4(), "CT1", "10.0.0.5", utc_now())
    keeper.tell(Opened(association))
    keeper.settled(10)
    begun, cpu = time.perf_counter(), time.process_time()
    for key, seen in keys:
        keeper.tell(Stored(key, association.id, seen))
    if not keeper.settled(600):
        raise SystemExit("the index did not follow within ten minutes")
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    keeper.stop()
    return len(keys) / took, cpu / len(keys) * 1000


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--objects", type=int, default=2000)
    options.add_argument("--full", type=int, default=1_000_000)
    asked = options.parse_args()
    home = Path(tempfile.mkdtemp(prefix="wetread-bench-"))
    server = EmbeddedPostgres(home / "home")
    (home / "home").mkdir()
    try:
        server.start()
        database = Database(server.url)
        migrate(database)
        spool = Spool(home / "spool")
        spool.prepare()
        ds = template()
        print(f"{asked.objects} objects a run, three runs")
        empty = [rate(database, spool, put(spool, ds, asked.objects)) for _ in range(3)]
        fill(database, asked.full)
        full = [rate(database, spool, put(spool, ds, asked.objects)) for _ in range(3)]
        for name, runs in (("none", empty), (f"{asked.full:,}", full)):
            told = ", ".join(f"{rate_:,.0f}/s ({cpu:.2f} ms of ours)" for rate_, cpu in runs)
            print(f"{name} indexed before: {told}")
        print(f"ratio of the best: {max(full)[0] / max(empty)[0]:.2f}")
        database.close()
    finally:
        server.stop(even_if_used=True)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
