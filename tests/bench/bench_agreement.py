"""How long agreement takes to count: the page, its list of disagreements and the metrics, over many results.

    python -m tests.bench.bench_agreement [--results 100000] [--runs 5]

Of the results, spread over two years, 40 % are signed, and a tenth of those not as the model had it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import sqlalchemy
from sqlalchemy import text

from deploy.embedded_postgres import EmbeddedPostgres
from fhir_records.agreement import AgreementQuery
from fhir_records.database import Database
from fhir_records.migrations import migrate
from fhir_records.store.agreement import agreement, disagreements, models_with_answers, recent

MODEL = "brain_mr_tumour"
ZONE = ZoneInfo("Asia/Kolkata")
IMAGES = 60  # that each result says it has read
_LABELS = "(ARRAY['glioma', 'meningioma', 'pituitary', 'notumor'])"
_FILL = (
    "INSERT INTO patient (id, patient_uid, name, sex) VALUES (1, '1', '', '')",
    "INSERT INTO study (id, study_uid, patient_id, accession_number, description, modalities, priority, source, caller,"
    " revision, routed_revision) SELECT n, '1.2.' || n, 1, 'A' || n, '', '{MR}', 'routine', 'dicom:A', '', 1, 1"
    " FROM generate_series(1, :n) n",
    "INSERT INTO series_equipment"
    " SELECT n, '1.2.' || n || '.1', 'Maker', 'Model ' || n % 7, 'MR' || n % 20, 'SN' || n % 20"
    " FROM generate_series(1, :n) n",
    "INSERT INTO read (id, study_id, revision, model, model_version, state, attempts, results_to, routes, priority)"
    f" SELECT n, n, 1, '{MODEL}', '1.' || n * 3 / (:n + 1) || '.0', 'read', 1, '{{}}', '{{}}', 'routine'"
    " FROM generate_series(1, :n) n",
    "INSERT INTO result (read_id, version, status, content, created_at)"
    " SELECT n, 1, 'preliminary', jsonb_build_object('finding', jsonb_build_object('label', label, 'presence',"
    " CASE label WHEN 'notumor' THEN 'absent' ELSE 'present' END, 'alternatives', '[]'::jsonb), 'images_read',"
    " (SELECT jsonb_agg(jsonb_build_object('series_uid', '1.2.' || n || '.1', 'sop_uid', '2.25.' || md5(n || '.' || i),"
    " 'sop_class_uid', '1.2.840.10008.5.1.4.1.1.4', 'frame', null)) FROM generate_series(1, :images) i)),"
    " now() - interval '730 days' * (1 - n / (:n + 1.0))"
    f" FROM (SELECT n, {_LABELS}[1 + (n * 2654435761) % 4] AS label FROM generate_series(1, :n) n) made",
    "INSERT INTO result (read_id, version, status, content, created_at)"
    " SELECT read_id, 2, 'final', content || jsonb_build_object('finding', content -> 'finding'"
    " || CASE WHEN read_id % 25 = 0 THEN jsonb_build_object('presence', 'present', 'label',"
    f" {_LABELS}[1 + read_id % 4]) ELSE '{{}}' END, 'signature',"
    " jsonb_build_object('withdrawal', '', 'note', '', 'act',"
    " CASE WHEN read_id % 125 = 0 THEN 'reject' WHEN read_id % 25 = 0 THEN 'correct' ELSE 'accept' END)),"
    " created_at + interval '1 hour'"
    " FROM result WHERE read_id % 5 < 2",
)


def fill(database: Database, results: int) -> None:
    """Make so many results, most of them unsigned."""
    with database.session() as session:
        for statement in _FILL:
            told = {"n": results, "images": IMAGES}
            session.execute(text(statement), {name: value for name, value in told.items() if f":{name}" in statement})
    with sqlalchemy.create_engine(database.engine.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself after a while


def timed(act: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and longest seconds."""
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return statistics.median(took), max(took)


def measure(database: Database, runs: int) -> None:
    """Print what each question takes."""
    everything = AgreementQuery(MODEL, ZONE)
    half_a_year = AgreementQuery(MODEL, ZONE, since=dt.datetime.now(dt.UTC) - dt.timedelta(days=182))
    with database.session() as session:
        found = agreement(session, everything)
        print(f"{found.total.reads:,} results, {found.total.signed:,} compared, {len(found.scanners)} scanners")
        for name, act in (
            ("agreement of all", lambda: agreement(session, everything)),
            ("agreement of half a year", lambda: agreement(session, half_a_year)),
            ("newest 50 disagreements of all", lambda: disagreements(session, everything)),
            ("newest 50 disagreements of half a year", lambda: disagreements(session, half_a_year)),
            ("the models", lambda: models_with_answers(session)),
            ("metrics of 28 days", lambda: recent(session)),
        ):
            median, longest = timed(act, runs)
            print(f"{name:40} {median * 1000:7.0f} ms (longest {longest * 1000:.0f})")


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_agreement", description=__doc__)
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        server = EmbeddedPostgres(Path(home))
        server.start()
        try:
            database = Database(server.url)
            migrate(database)
            fill(database, told.results)
            measure(database, told.runs)
            database.close()
        finally:
            server.stop(even_if_used=True)


if __name__ == "__main__":
    main()
