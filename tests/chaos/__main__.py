"""A long storm by command: ``python -m tests.chaos --minutes 10``; exit status 1 where anything was lost."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import structlog

from tests.chaos.storm import storm


def main() -> int:
    """Read the command line, let it blow, print the account."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, default=0, help="go on until there were so many, too")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=0, help="acceptor processes; 0: as many as it chooses")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything, which stays to be looked at")
    parser.add_argument("--quiet", action="store_true")
    told = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    account = storm(
        told.minutes * 60,
        seed=told.seed,
        least_kills=told.kills,
        folder=told.keep,
        processes=told.processes,
        say=(lambda line: None) if told.quiet else print,
    )
    print("\n".join(account.lines()))
    return 1 if account.faults else 0


if __name__ == "__main__":
    sys.exit(main())
