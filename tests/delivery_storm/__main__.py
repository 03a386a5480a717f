"""The long run: ``python -m tests.delivery_storm --documents 400``. Exit status 1 where anything untrue was claimed."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog

from deploy.embedded_postgres import EmbeddedPostgres
from fhir_records.database import Database
from fhir_records.migrations import migrate
from tests.delivery_storm.storm import storm


def main() -> int:
    """Read the command line, let it blow, print the account."""
    parser = argparse.ArgumentParser(prog="python -m tests.delivery_storm", description=__doc__)
    parser.add_argument("--documents", type=int, default=400, help="each goes to two destinations")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    told = parser.parse_args()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    home = Path(tempfile.mkdtemp(prefix="wetread-storm-"))
    server = EmbeddedPostgres(home)
    try:
        server.start()
        database = Database(server.url)
        migrate(database)
        print(f"seed {told.seed}", flush=True)
        account = storm(
            database, told.documents, told.seed, cut=lambda: _restart(server), say=lambda line: print(line, flush=True)
        )
        database.close()
    finally:
        server.stop(even_if_used=True)
        shutil.rmtree(home)
    print("\n".join(account.lines()))
    return 1 if account.untrue else 0


def _restart(server: EmbeddedPostgres) -> None:
    server.stop(even_if_used=True)
    server.start()


if __name__ == "__main__":
    sys.exit(main())
