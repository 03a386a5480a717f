"""The listener's processes as they ship take everything that the test data has, and DICOMweb gives it back."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom import dcmread
from sqlalchemy import func, select

from dicom_listener.bounded import BoundedDecoder
from dicom_listener.received import split_file
from dicom_listener.sender import send
from dicom_listener.settings import Node, SenderSettings
from fhir_records import tables
from fhir_records.errors import PeerRefused
from fhir_records.model import InstanceKind, Standing
from tests.chaos.stand import Stand, standing
from tests.peers import HOST, storescu, wait_until
from web.dicomweb_http import dicomweb_router

SERIES = ("philips_brain_mr", "ge_fruit_mr")  # sent whole, over one association each, by storescu
SINGLE = ("assorted", "sr_tid1500", "transfer_syntaxes")  # every encoding: each as it is
# Of these, what no sense can be made of (Cxxx): see test_whatever_they_send.
NOT_UNDERSTOOD = 3


def send_single(stand: Stand, paths: list[Path]) -> Counter[int]:
    """Send each over an association of its own, in its own encoding; how often which status came."""
    node = Node("us", "WETREAD", HOST, stand.port, timeout_s=60)
    statuses: Counter[int] = Counter()
    for path in paths:
        try:
            statuses[send(path.read_bytes(), node, SenderSettings(ae_title="CT2")).status] += 1
        except PeerRefused as error:
            statuses[error.status or -1] += 1
    return statuses


def says_two_things(path: Path) -> bool:
    """Whether a file's meta information, which our sender announces, names another object than its data set."""
    ds = dcmread(path, stop_before_pixels=True, force=True)
    named = (ds.file_meta.get("MediaStorageSOPClassUID"), ds.file_meta.get("MediaStorageSOPInstanceUID"))
    return bool(ds.get("StudyInstanceUID")) and named != (ds.SOPClassUID, ds.SOPInstanceUID)


@pytest.mark.timeout(300)
def test_the_role_takes_all_of_the_test_data_and_gives_it_back(tmp_path: Path, test_data: Path) -> None:
    """All of the test data goes in, is in the index once, as it was sent, and what has an image comes out as one."""
    series = {name: sorted((test_data / "dicom" / name).rglob("*.dcm")) for name in SERIES}
    single = [path for name in SINGLE for path in sorted((test_data / "dicom" / name).rglob("*.dcm*"))]
    with standing(tmp_path) as stand:
        for name, paths in series.items():
            done = storescu(paths, HOST, stand.port, calling=name[:16].upper())
            assert done.status == 0, done.output[-2000:]
        statuses = send_single(stand, single)
        lying = [path for path in single if says_two_things(path)]
        assert statuses == {0: len(single) - NOT_UNDERSTOOD - len(lying), 0xC000: NOT_UNDERSTOOD, 0xA900: len(lying)}

        def current() -> list[tables.Instance]:
            with stand.database.session() as session:
                query = select(tables.Instance).where(tables.Instance.standing == Standing.CURRENT)
                return list(session.scalars(query))

        sent = defaultdict(list)
        for path in [path for paths in series.values() for path in paths] + single:
            ds = dcmread(path, stop_before_pixels=True, force=True)
            if ds.get("StudyInstanceUID") and "too_short" not in path.name and path not in lying:
                sent[str(ds.SOPInstanceUID)].append(path)
        wait_until(lambda: len(current()) >= len(sent), timeout_s=180, what="the index")
        rows = {row.sop_uid: row for row in current()}
        assert rows.keys() == sent.keys()
        with stand.database.session() as session:
            wait_until(
                lambda: (
                    session.scalar(select(func.count()).select_from(tables.QuarantinedObject))
                    == NOT_UNDERSTOOD + len(lying)
                ),
                what="the quarantine's rows",
            )
        for sop_uid, paths in sent.items():
            stored = stand.spool.path(rows[sop_uid].file_key)
            assert any(same(path, stored, exactly=path in single) for path in paths), paths
        alone = [row for row in rows.values() if sent[row.sop_uid][0] in single]
        of_series = [row for row in rows.values() if row not in alone][::10]
        assert pictures(stand, alone) >= 10
        assert pictures(stand, of_series) == len(of_series)


def same(sent: Path, stored: Path, *, exactly: bool) -> bool:
    """Whether the data set is what was sent, or (storescu encodes sequences anew) says the same."""
    if not exactly:
        return bool(dcmread(sent) == dcmread(stored))
    data = bytes(split_file(sent.read_bytes())[1])
    # A deflated data set of odd length is padded on its way (PS3.5 section A.5).
    return bytes(split_file(stored.read_bytes())[1]) == data + bytes(len(data) % 2)


def pictures(stand: Stand, rows: list[tables.Instance]) -> int:
    """How many of these come out of WADO-RS as a picture; the others explain themselves."""
    shown = 0
    with BoundedDecoder() as decoder, stand.database.session() as session:
        app = FastAPI()
        app.include_router(dicomweb_router(stand.database, stand.spool.root, ZoneInfo("UTC"), (), decoder))
        web = TestClient(app, raise_server_exceptions=False)
        studies = dict(session.execute(select(tables.Study.id, tables.Study.study_uid)).tuples().all())
        for row in rows:
            address = f"/studies/{studies[row.study_id]}/series/{row.series_uid}/instances/{row.sop_uid}"
            answer = web.get(f"{address}/rendered", headers={"Accept": "image/jpeg"})
            if row.kind is InstanceKind.IMAGE and row.rows is not None:
                assert answer.status_code == 200, (row.sop_class_uid, row.transfer_syntax_uid, answer.text[:200])
                assert answer.content.startswith(b"\xff\xd8")
                shown += 1
            else:
                assert answer.status_code in (200, 404, 406), answer.status_code
                assert answer.status_code == 200 or answer.json()["message"]
    return shown
