"""A process that judges which studies are complete, to be killed: DATABASE_URL IDLE_SECONDS MAX_SECONDS."""

from __future__ import annotations

import datetime as dt
import sys
import time

from dicom_listener.arrivals import CompletionRules
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable
from workflow.sweeps import Sweeper


def main() -> None:
    url, idle, longest = sys.argv[1:]
    sweeper = Sweeper(Database(url), CompletionRules(float(idle), float(longest)), lambda: dt.datetime.now(dt.UTC))
    while True:
        try:
            sweeper.sweep()
        except DatabaseUnavailable:
            time.sleep(0.5)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
