"""What Prometheus is told of the listener."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from pathlib import Path

from dicom_listener.handover import Ended, Ending, Opened, Rejected, Stored
from dicom_listener.index_keeper import IndexKeeper
from dicom_listener.received import file_header
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.metrics import exposition
from fhir_records.store.associations import OpenAssociation
from tests.unit.dicom_listener.objects import encoded, image, received


def figures(database: Database) -> dict[str, float]:
    """The listener's figures, by name and labels."""
    with database.session() as session:
        told = exposition(session).decode()
    wanted = r"^(wetread_(?:associations|received|instances_missing)\S*) (\S+)$"
    return {name: float(value) for name, value in re.findall(wanted, told, re.MULTILINE)}


def test_listener_figures_tell_who_sent_and_who_was_turned_away(database: Database, tmp_path: Path) -> None:
    """Objects and bytes by sender, associations by outcome: of the last hour only, and without patient data."""
    now = dt.datetime.now(dt.UTC)
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    keeper = IndexKeeper(ListenerSettings(), database, spool)
    keeper.start()
    sizes = []
    try:
        for ending, at in ((Ending.RELEASED, now), (Ending.ABORTED_BY_PEER, now), (Ending.LOST, now - 3 * HOUR)):
            association = OpenAssociation(uuid.uuid4(), "CT1", "10.0.0.5", at)
            keeper.tell(Opened(association))
            ds = image()
            how = received(ds, caller="CT1", source="dicom:CT1", received_at=at)
            file = spool.store([file_header(how), encoded(ds)], at)
            sizes.append(file.size)
            keeper.tell(Stored(file.key, association.id))
            keeper.tell(Ended(association, ending, "", 1, 0, file.size, at))
        keeper.tell(Rejected("EVIL", "WETREAD", "10.6.6.6", "calling AE title not recognized", now))
        assert keeper.settled(20)
        told = figures(database)
        path = spool.path(file.key)
        path.unlink()
        keeper.look()
        assert keeper.settled(20)
    finally:
        keeper.stop()
    assert told == {
        "wetread_associations_open": 0,
        'wetread_associations_1h{outcome="accepted"}': 2,
        'wetread_associations_1h{outcome="rejected"}': 1,
        'wetread_associations_1h{outcome="released"}': 1,
        'wetread_associations_1h{outcome="aborted"}': 1,
        'wetread_associations_1h{outcome="lost"}': 0,
        'wetread_received_objects_1h{source="dicom:CT1"}': 2,
        'wetread_received_bytes_1h{source="dicom:CT1"}': sizes[0] + sizes[1],
        "wetread_instances_missing": 0,
    }
    assert figures(database)["wetread_instances_missing"] == 1


HOUR = dt.timedelta(hours=1)
