"""What a study holds besides pictures, on its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import InstanceKind, Standing
from tests import seed
from tests.integration import sent_objects as made
from tests.integration.web.forms import Enter
from tests.unit.dicom_listener.objects import as_file


def add(session: Session, study: tables.Study, folder: Path, ds: Dataset, content: bytes, **changed: Any) -> int:
    """An object in the record and on the disk; gives its number."""
    (folder / f"{ds.SOPInstanceUID}.dcm").write_bytes(content)
    told: dict[str, Any] = {
        "study_id": study.id,
        "series_uid": f"{study.study_uid}.9",
        "sop_uid": ds.SOPInstanceUID,
        "sop_class_uid": ds.SOPClassUID,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "kind": InstanceKind.OTHER,
        "standing": Standing.CURRENT,
        "modality": ds.Modality,
        "series_number": 9,
        "series_description": "From elsewhere",
        "instance_number": 1,
        "rows": ds.get("Rows"),
        "columns": ds.get("Columns"),
        "file_key": f"{ds.SOPInstanceUID}.dcm",
        "sha256": "0" * 64,
        "size": len(content),
        "source": "dicom:CT1",
        "received_at": seed.NOW,
    }
    row = tables.Instance(**(told | changed))
    session.add(row)
    session.flush()
    return row.id


def test_each_object_is_named_as_what_it_is(enter: Enter, database: Database, tmp_path: Path) -> None:
    """Kind, series, and for a video why there is no picture; images that can be shown are not listed."""
    film = made.video("1.2.840.10008.1.2.4.103")
    objects = {
        "PDF document": made.pdf(),
        "12-lead ECG": made.ecg(),
        "Structured report (basic text)": made.basic_text_report(),
        "Presentation state (greyscale)": made.without_image("11.1", "PR"),
        "Segmentation": made.without_image("66.4", "SEG"),
        "Radiotherapy structure set": made.without_image("481.3", "RTSTRUCT"),
        "Key object selection": made.without_image("88.59", "KO"),
        "Object of a private or newer kind": made.without_image("4", "OT", SOPClassUID=UID("1.3.12.2.1107.5.9.1")),
    }
    with database.session() as session:
        study = seed.add_study(session, 1)
        path = f"/studies/{study.study_uid}"
        plain = enter().get(path).text
        for ds in objects.values():
            add(session, study, tmp_path, ds, as_file(ds))
        add(
            session,
            study,
            tmp_path,
            made.dcmread_of(film),
            film,
            transfer_syntax_uid="1.2.840.10008.1.2.4.103",
            kind=InstanceKind.IMAGE,
            series_description="<b>Endoscopy</b>",
        )
    assert "Also in this study" not in plain
    text = enter().get(path).text
    for words in (
        *objects,
        "Video (",
        "This is a video (MPEG-4 AVC/H.264 BD-compatible",
        "From elsewhere, series 9, object 1",
    ):
        assert words in text, words
    assert "&lt;b&gt;Endoscopy&lt;/b&gt;" in text
    assert text.count('class="document object"') == len(objects) + 1
    assert text.count(">Open</a>") == 1


def test_an_object_is_handed_out_as_it_was_stored(enter: Enter, database: Database, tmp_path: Path) -> None:
    """The file's very bytes, for people who are logged in, and only below its own study; and it is written down."""
    ds = made.ecg()
    content = as_file(ds)
    with database.session() as session:
        study, other = seed.add_study(session, 1), seed.add_study(session, 2)
        number = add(session, study, tmp_path, ds, content)
        path, elsewhere = f"/studies/{study.study_uid}", f"/studies/{other.study_uid}"
    client = enter()
    answer = client.get(f"{path}/objects/{number}")
    assert answer.content == content and answer.headers["content-type"] == "application/dicom"
    assert "attachment" in answer.headers["content-disposition"]
    assert client.get(f"{elsewhere}/objects/{number}").status_code == 404
    assert client.get(f"{path}/objects/{number}/document").status_code == 404
    assert client.get(f"{path}/objects/{number}/text").status_code == 404
    client.cookies.clear()
    assert client.get(f"{path}/objects/{number}").status_code in (303, 401)
    with database.session() as session:
        row = session.scalars(select(tables.AuditEvent).where(tables.AuditEvent.action == "object downloaded")).one()
        assert (row.actor, row.detail) == ("radiologist", {"instance_id": number})


def test_a_pdf_is_opened_where_nothing_in_it_can_run(enter: Enter, database: Database, tmp_path: Path) -> None:
    """The document without its padding, as a PDF and nothing else, under a policy that lets it load nothing."""
    with database.session() as session:
        study = seed.add_study(session, 1)
        good, bad = made.pdf(), made.pdf(b"<html><script>alert(1)</script></html>")
        numbers = [add(session, study, tmp_path, ds, as_file(ds)) for ds in (good, bad)]
        path = f"/studies/{study.study_uid}"
    client = enter()
    answer = client.get(f"{path}/objects/{numbers[0]}/document")
    assert answer.content == made.PDF and answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("inline")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script" not in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    refused = client.get(f"{path}/objects/{numbers[1]}/document")
    assert refused.status_code == 404 and "holds something else" in refused.text and "alert" not in refused.text


def test_reports_of_other_makers_are_read_as_text(enter: Enter, database: Database, tmp_path: Path) -> None:
    """Their content tree in their own character set; one that is broken is a page in words."""
    report = made.basic_text_report("Очаг <в> печени", SpecificCharacterSet="ISO_IR 144")
    broken = made.without_image("88.11", "SR")
    with database.session() as session:
        study = seed.add_study(session, 1)
        numbers = [add(session, study, tmp_path, ds, as_file(ds)) for ds in (report, broken)]
        path = f"/studies/{study.study_uid}"
    client = enter()
    text = client.get(f"{path}/objects/{numbers[0]}/text").text
    assert "Radiology Report" in text and "Очаг &lt;в&gt; печени" in text and "Not written by Wetread" in text
    answer = client.get(f"{path}/objects/{numbers[1]}/text")
    assert answer.status_code == 422 and "no content tree" in answer.text


def test_names_in_three_groups_are_shown_right(enter: Enter, database: Database) -> None:
    """Worklist and study page show the alphabetic group, and the ideographic one in brackets."""
    with database.session() as session:
        names = (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "Hong^Gildong=洪^吉洞=홍^길동",
            "Wang^XiaoDong=王^小東=",
            "قباني^لنزار",
        )
        studies = [seed.add_study(session, number, name=name).study_uid for number, name in enumerate(names, 1)]
    client = enter()
    worklist = client.get("/").text
    shown = ("Yamada, Tarou (山田 太郎)", "Hong, Gildong (洪 吉洞)", "Wang, XiaoDong (王 小東)", "قباني, لنزار")
    for study_uid, words in zip(studies, shown, strict=True):
        assert words in worklist and words in client.get(f"/studies/{study_uid}").text, words
