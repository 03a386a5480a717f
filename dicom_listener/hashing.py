"""The files of the index hashed, behind its rows and when it has nothing else to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import text

from dicom_listener.digests import digests_of
from dicom_listener.faults import where
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.errors import ObjectNotStorable
from fhir_records.store import digests
from fhir_records.store.digests import Digests, Unhashed

log = structlog.get_logger(__name__)

_PAGE: Final = 100  # files whose hashes are written together


class Hashing:
    """Hashes files whose instances have no hashes.

    Args:
        database: of the index.
        spool: where the files are.
    """

    def __init__(self, database: Database, spool: Spool) -> None:
        self._database = database
        self._spool = spool
        self._broken: set[Unhashed] = set()  # told of, and not tried again

    def catch_up(self, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Hash all that was not hashed yet; False: ``go_on``, asked before each file, said that it is enough.

        Raises:
            DatabaseUnavailable: it went away; what was written stays.
        """
        after, more = 0, True
        while more:
            with self._database.session() as session:
                page = digests.without_digests(session, after, _PAGE)
            if not page:
                return True
            found = dict[Unhashed, Digests]()
            for one in page:
                more = go_on()
                if not more:
                    break
                if one not in self._broken and (hashed := self._hashed(one)) is not None:
                    found[one] = hashed
            with self._database.session() as session:
                # What a power cut takes back is hashed again.
                session.execute(text("SET LOCAL synchronous_commit TO off"))
                digests.record_digests(session, found)
            after = page[-1].id
        return False

    def _hashed(self, one: Unhashed) -> Digests | None:
        try:
            return digests_of(self._spool.path(one.file_key))
        except FileNotFoundError:
            return None  # the reconciler says so
        except (ObjectNotStorable, OSError) as error:
            self._broken.add(one)
            log.error("a file of the index cannot be read any more", file=one.file_key, error=where(error))
            return None
