from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from fhir.resources.R4B import get_fhir_model_class
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import NotFound, QueryError
from fhir_records.fhir_api.parameters import PARAMETERS
from fhir_records.fhir_api.search import parse_query
from fhir_records.model import FhirResource, Role, Study, User
from fhir_records.renderings.fhir import (
    diagnostic_report_id,
    imaging_study_id,
    observation_id,
    patient_id,
    render_report,
    render_study,
)
from fhir_records.store import fhir as store
from fhir_records.store import tokens
from tests.unit.fhir_records.renderings.fhir_reports import (
    ABSENT,
    INSTALLATION,
    INSTANCES,
    PATIENT,
    PRESENT,
    READ,
    REFUSAL,
    STARTED,
    STUDY,
    report_of,
)
from web.fhir_http import fhir_router

BASE = "http://wetread.example/fhir"
PATIENT_ID = patient_id(INSTALLATION, PATIENT.patient_uid)
OBSERVATION_ID = observation_id(INSTALLATION, STUDY, READ)
REPORT_ID = diagnostic_report_id(INSTALLATION, STUDY, READ)
STUDY_ID = imaging_study_id(INSTALLATION, STUDY.study_uid)


def add_study(database: Database, study: Study = STUDY) -> tuple[int, int]:
    """The rows that FHIR resources hang on; numbers of patient and study."""
    with database.session() as session:
        patient = tables.Patient(patient_uid=study.patient.patient_uid, name=study.patient.name)
        row = tables.Study(study_uid=study.study_uid, patient=patient, source="dicom:CT1")
        session.add(row)
        session.flush()
        return patient.id, row.id


@pytest.fixture
def numbers(database: Database) -> tuple[int, int]:
    return add_study(database)


def put(database: Database, resources: tuple[FhirResource, ...], numbers: tuple[int, int]) -> tuple[str, ...]:
    with database.session() as session:
        return store.put(session, resources, patient_id=numbers[0], study_id=numbers[1])


@pytest.fixture
def filled(database: Database, numbers: tuple[int, int]) -> Database:
    """A record with one study that was read."""
    put(database, render_report(report_of(PRESENT)), numbers)
    return database


Connect = Callable[..., TestClient]


@pytest.fixture
def connect(database: Database) -> Connect:
    """A client whose token has the given scope; None: no token."""

    def made(scope: str | None = "system/*.rs", person: Callable[[Request], User | None] | None = None) -> TestClient:
        app = FastAPI()
        app.include_router(
            fhir_router(
                database, public_url="http://wetread.example", version="1", zone=ZoneInfo("Asia/Kolkata"), person=person
            )
        )
        headers = {}
        if scope is not None:
            with database.session() as session:
                count = len(tokens.list_all(session))
                token = tokens.create(session, f"token {count}", scope)
            headers = {"Authorization": f"Bearer {token}"}
        return TestClient(app, headers=headers)

    return made


def audit_rows(database: Database) -> list[tables.AuditEvent]:
    with database.session() as session:
        return list(session.execute(select(tables.AuditEvent).order_by(tables.AuditEvent.id)).scalars())


def test_every_resource_can_be_read_and_is_valid(filled: Database, connect: Connect) -> None:
    """Each of the six types is found, is read under its address, and parses as R4, version and time of change in it."""
    client = connect()
    for kind in PARAMETERS:
        bundle = client.get(f"/fhir/{kind}").json()
        assert bundle["total"] == 1
        (entry,) = bundle["entry"]
        answer = client.get(urlsplit(entry["fullUrl"]).path)
        assert answer.status_code == 200
        assert answer.json() == entry["resource"]
        assert answer.headers["etag"] == 'W/"1"'
        assert answer.headers["last-modified"].endswith("GMT")
        assert answer.json()["meta"]["versionId"] == "1"
        get_fhir_model_class(kind).model_validate(answer.json())


def test_what_is_served_is_the_stored_text(filled: Database, connect: Connect) -> None:
    """Read and search give the stored bytes, never serialised again."""
    with filled.session() as session:
        text = store.get(session, "Observation", OBSERVATION_ID).text
    client = connect()
    assert client.get(f"/fhir/Observation/{OBSERVATION_ID}").content == text.encode()
    assert text in client.get("/fhir/Observation").text


def test_the_same_again_changes_nothing_and_other_content_is_a_new_version(
    database: Database, numbers: tuple[int, int]
) -> None:
    """Rendering twice is harmless; a result taken back is version 2 of the same Observation."""
    assert len(put(database, render_report(report_of(PRESENT)), numbers)) == 6
    with database.session() as session:
        before = store.get(session, "Observation", OBSERVATION_ID)
    assert put(database, render_report(report_of(PRESENT)), numbers) == ()
    with database.session() as session:
        assert store.get(session, "Observation", OBSERVATION_ID) == before

    changed = put(database, render_report(report_of(REFUSAL)), numbers)
    assert f"Observation/{OBSERVATION_ID}" in changed
    assert f"Patient/{PATIENT_ID}" not in changed
    with database.session() as session:
        after = store.get(session, "Observation", OBSERVATION_ID)
    assert after.version == 2
    assert after.last_updated > before.last_updated
    meta = json.loads(after.text)["meta"]
    assert meta["versionId"] == "2"
    assert meta["security"][0]["code"] == "AIAST"
    assert dt.datetime.fromisoformat(meta["lastUpdated"]) == after.last_updated


def test_writers_at_the_same_time_make_one_version(database: Database, numbers: tuple[int, int]) -> None:
    """Two renderings of the same study meet: neither fails, nothing is counted twice."""
    resources = render_report(report_of(PRESENT))
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: put(database, resources, numbers), range(8)))
    assert sum(len(outcome) for outcome in outcomes) == 6
    with database.session() as session:
        assert set(session.execute(select(tables.FhirResource.version)).scalars()) == {1}


def test_a_study_that_nobody_reads_is_served_all_the_same(
    database: Database, numbers: tuple[int, int], connect: Connect
) -> None:
    """Patient and ImagingStudy stand as soon as the study is routed."""
    put(database, render_study(INSTALLATION, STUDY, INSTANCES), numbers)
    client = connect()
    assert client.get("/fhir/ImagingStudy", params={"patient": PATIENT_ID}).json()["total"] == 1
    assert client.get("/fhir/Observation").json()["total"] == 0


# What is asked, and how many it finds.
SEARCHES = [
    (f"Patient?_id={PATIENT_ID}", 1),
    (f"Patient?_id=nobody,{PATIENT_ID}", 1),
    ("Patient?_id=nobody", 0),
    ("Patient?identifier=1234567890128", 1),
    (r"Patient?identifier=P\|1", 1),
    (r"Patient?identifier=|P\|1", 0),
    ("Patient?identifier=|P3", 1),
    ("Patient?identifier=urn:oid:1.2.3.4|P2", 1),
    ("Patient?identifier=urn:oid:1.2.3.4|", 1),
    ("Patient?identifier=urn:oid:1.2.3.4|P3", 0),
    ("Patient?identifier=P2&identifier=P3", 1),
    ("Patient?identifier=P2&identifier=P4", 0),
    ("Patient?identifier=P4,P3", 1),
    ("ImagingStudy?identifier=urn:dicom:uid|urn:oid:2.25.10", 1),
    ("ImagingStudy?identifier=ACC 1", 1),
    ("ImagingStudy?modality=MR", 1),
    ("ImagingStudy?modality=CT", 0),
    ("ImagingStudy?started=2026-03-04", 1),
    ("ImagingStudy?status=available", 1),
    (f"Observation?patient={PATIENT_ID}", 1),
    (f"Observation?patient=Patient/{PATIENT_ID}", 1),
    (f"Observation?subject={BASE}/Patient/{PATIENT_ID}", 1),
    ("Observation?patient=nobody", 0),
    ("Observation?status=preliminary", 1),
    ("Observation?status=final", 0),
    ("Observation?status=final,preliminary", 1),
    ("Observation?code=393564001", 1),
    ("Observation?code=http://snomed.info/sct|393564001", 1),
    ("Observation?code=http://loinc.org|393564001", 0),
    ("Observation?code=|393564001", 0),
    ("Observation?date=2026", 1),
    ("Observation?date=2026-03-04", 1),
    ("Observation?date=2026-03-05", 0),
    ("Observation?date=ge2026-03-04&date=lt2026-03-05", 1),
    ("Observation?date=gt2026-03-04", 0),
    ("Observation?date=ne2026-03-04", 0),
    ("Observation?date=2026-03-04T05:06:07Z", 1),
    ("Observation?date=2026-03-04T10:36:07%2B05:30", 1),
    ("Observation?date=2026-03-04T10:36", 1),  # the site is in Kolkata
    ("Observation?date=2026-03-04T05:06", 0),
    ("Observation?_lastUpdated=gt2020", 1),
    ("Observation?_lastUpdated=lt2020", 0),
    (f"Observation?patient={PATIENT_ID}&status=preliminary&code=393564001&date=2026-03", 1),
    ("DiagnosticReport?code=http://loinc.org|18748-4", 1),
    (f"DiagnosticReport?patient={PATIENT_ID}", 1),
    ("Device?type=123110", 1),
    ("Device?identifier=urn:oid:2.25.777", 1),
    (f"Provenance?patient={PATIENT_ID}", 1),
    ("Provenance?recorded=2026-03-04", 1),
    ("Observation?colour=red", 1),
    ("Observation?status=", 1),
]


def test_search_finds_what_is_asked_for(filled: Database, connect: Connect) -> None:
    """Tokens, references, words and dates find the one that matches and no other, by GET and by POST."""
    client = connect("system/*.s")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    found = []
    for address, _ in SEARCHES:
        answer = client.get(f"/fhir/{address}")
        assert answer.status_code == 200, address
        bundle = answer.json()
        assert len(bundle.get("entry", [])) == bundle["total"]
        kind, _, query = address.partition("?")
        assert client.post(f"/fhir/{kind}/_search", content=query, headers=form).json() == bundle
        found.append((address, bundle["total"]))
    assert found == SEARCHES


def test_a_date_bound_is_exact(filled: Database, connect: Connect) -> None:
    """_lastUpdated of a resource, given back as it was told, finds it: a client can follow changes by it."""
    client = connect()
    moment = client.get("/fhir/Observation").json()["entry"][0]["resource"]["meta"]["lastUpdated"]
    totals = {
        prefix: client.get("/fhir/Observation", params={"_lastUpdated": f"{prefix}{moment}"}).json()["total"]
        for prefix in ("eq", "ne", "gt", "lt", "ge", "le")
    }
    assert totals == {"eq": 1, "ne": 0, "gt": 0, "lt": 0, "ge": 1, "le": 1}


def test_two_patients_are_kept_apart(filled: Database, connect: Connect) -> None:
    """Searching by one patient never shows another's."""
    other = replace(STUDY, study_uid="2.25.11", patient=replace(PATIENT, patient_uid="0000000000001"))
    numbers = add_study(filled, other)
    put(filled, render_report(replace(report_of(ABSENT), study=other)), numbers)
    client = connect()
    for kind in ("ImagingStudy", "Observation", "DiagnosticReport"):
        assert client.get(f"/fhir/{kind}").json()["total"] == 2
        (entry,) = client.get(f"/fhir/{kind}", params={"patient": PATIENT_ID}).json()["entry"]
        assert entry["resource"]["subject"]["reference"] == f"Patient/{PATIENT_ID}"
    assert client.get("/fhir/Device").json()["total"] == 1


def add_observations(database: Database, numbers: tuple[int, int], days: range) -> set[str]:
    ids = set()
    for day in days:
        study = replace(STUDY, study_uid=f"2.25.1{day:04}", started_at=STARTED + dt.timedelta(days=day))
        resources = render_report(replace(report_of(PRESENT), study=study))
        observation = next(resource for resource in resources if resource.type == "Observation")
        put(database, (observation,), numbers)
        ids.add(observation.id)
    return ids


def test_pages_hold_everything_once(database: Database, numbers: tuple[int, int], connect: Connect) -> None:
    """Following the next links meets each resource that was there exactly once, while others are being added."""
    client = connect()
    ids = add_observations(database, numbers, range(7))
    day = 100
    for sort in ("", "_lastUpdated", "-_lastUpdated", "date", "-date", "_id", "-_id"):
        seen: list[str] = []
        dates: list[str] = []
        address: str | None = f"/fhir/Observation?_count=3&status=preliminary&_sort={sort}"
        while address is not None:
            bundle = client.get(address).json()
            assert len(bundle["entry"]) <= 3
            seen += [entry["resource"]["id"] for entry in bundle["entry"]]
            dates += [entry["resource"]["effectiveDateTime"] for entry in bundle["entry"]]
            following = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
            address = following[0].removeprefix("http://wetread.example") if following else None
            if len(seen) < 7:
                add_observations(database, numbers, range(day, day + 1))
                day += 1
        assert len(seen) == len(set(seen))
        assert ids <= set(seen)
        if sort.endswith("date"):
            assert dates == sorted(dates, reverse=sort.startswith("-"))


def test_count_0_is_the_total_alone(filled: Database, connect: Connect) -> None:
    """No entry, no next page."""
    bundle = connect().get("/fhir/Observation?_count=0").json()
    assert (bundle["total"], "entry" in bundle) == (1, False)
    assert [link["relation"] for link in bundle["link"]] == ["self"]


def test_unknown_parameters_are_ignored_or_refused_as_asked(filled: Database, connect: Connect) -> None:
    """Lenient leaves them out of the self link; strict is a 400 that names them; a modifier is always a 400."""
    client = connect()
    lenient = client.get("/fhir/Observation?status=preliminary&colour=red").json()
    assert lenient["link"][0]["url"] == f"{BASE}/Observation?status=preliminary"
    strict = client.get("/fhir/Observation?colour=red", headers={"Prefer": "handling=strict"})
    assert strict.status_code == 400
    assert "colour" in strict.json()["issue"][0]["diagnostics"]
    assert client.get("/fhir/Observation?code:not=1").status_code == 400
    assert client.get("/fhir/Observation?date=soon").json()["resourceType"] == "OperationOutcome"


def test_a_client_that_has_it_gets_304(filled: Database, connect: Connect) -> None:
    """If-None-Match with the current version saves the body; another version does not."""
    client = connect()
    address = f"/fhir/Observation/{OBSERVATION_ID}"
    for tags, status in (('W/"1"', 304), ('"1"', 304), ('W/"7", W/"1"', 304), ("*", 304), ('W/"2"', 200)):
        answer = client.get(address, headers={"If-None-Match": tags})
        assert answer.status_code == status
        assert answer.headers["etag"] == 'W/"1"'
    assert client.head(address).status_code == 200


def test_what_is_not_there_is_a_404(filled: Database, connect: Connect) -> None:
    """An unknown id and an unknown type are told apart in words."""
    client = connect()
    for address in ("/fhir/Patient/nobody", "/fhir/Medication", "/fhir/Medication/1", "/fhir/Patient/_search"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert answer.json()["resourceType"] == "OperationOutcome"


def test_a_scope_that_is_too_small_is_a_403_and_in_the_audit_trail(filled: Database, connect: Connect) -> None:
    """Reading is not searching, and one type is not another."""
    client = connect("system/Observation.r")
    assert client.get(f"/fhir/Observation/{OBSERVATION_ID}").status_code == 200
    for address in ("/fhir/Observation", f"/fhir/Patient/{PATIENT_ID}", "/fhir/Patient"):
        answer = client.get(address)
        assert answer.status_code == 403
        assert answer.json()["issue"][0]["code"] == "forbidden"
    assert [row.outcome for row in audit_rows(filled)] == ["success", "not allowed", "not allowed", "not allowed"]


def test_every_read_is_in_the_audit_trail_without_the_patients_data(filled: Database, connect: Connect) -> None:
    """Who, what and of which study; neither name nor number nor what was searched for."""
    client = connect()
    client.get(f"/fhir/DiagnosticReport/{REPORT_ID}")
    client.get("/fhir/Patient?identifier=1234567890128")
    client.get("/fhir/Patient/Curie")
    read, search, missed = audit_rows(filled)
    assert (read.actor, read.action, read.study_uid) == ("token:token 0", "fhir read", STUDY.study_uid)
    assert read.detail == {"type": "DiagnosticReport", "id": REPORT_ID}
    assert search.detail == {"type": "Patient", "parameters": ["identifier"], "total": 1, "ids": [PATIENT_ID]}
    assert missed.outcome == "not found"
    assert not any(secret in str(row.detail) for row in (read, search, missed) for secret in ("Curie", "1234567890128"))


def test_revoked_and_old_tokens_open_nothing(filled: Database, connect: Connect) -> None:
    """From the moment of revocation or the end of its time a token is as good as none."""
    client = connect()
    assert client.get("/fhir/Patient").status_code == 200
    with filled.session() as session:
        tokens.revoke(session, "token 0")
    answer = client.get("/fhir/Patient")
    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["www-authenticate"]
    with filled.session() as session:
        old = tokens.create(session, "old", "system/*.rs", dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))
    for header in (f"Bearer {old}", "Bearer", "Bearer x", "Basic eDp5", "Bearer \udcff"):
        sent = {"Authorization": header.encode("utf-8", "surrogateescape")}
        assert client.get("/fhir/Patient", headers=sent).status_code == 401


def test_a_token_is_kept_as_a_hash_only(database: Database) -> None:
    """What the database holds opens nothing; the scheme's name may be in any case; use is noted."""
    with database.session() as session:
        token = tokens.create(session, "pacs", "system/*.rs")
    with database.session() as session:
        row = session.execute(select(tables.Token)).scalar_one()
        assert token not in str({column.name: getattr(row, column.name) for column in tables.Token.__table__.columns})
        assert tokens.check(session, row.token_sha256) is None
        assert len(token) > 43
        grant = tokens.check(session, token)
        assert grant == tokens.TokenGrant("pacs", "system/*.rs")
    with database.session() as session:
        (listed,) = tokens.list_all(session)
        assert listed.last_used_at is not None
        assert token not in repr(listed)


def test_token_names_are_never_used_twice(database: Database) -> None:
    """A revoked token keeps its name, so that the audit trail stays clear; an unknown one cannot be revoked."""
    with database.session() as session:
        tokens.create(session, "ehr", "system/*.rs")
        tokens.revoke(session, "ehr")
        tokens.revoke(session, "ehr")
        with pytest.raises(QueryError, match="ehr"):
            tokens.create(session, "ehr", "system/*.rs")
        with pytest.raises(NotFound):
            tokens.revoke(session, "nobody")


def test_a_person_who_is_logged_in_may_read(filled: Database, connect: Connect) -> None:
    """Links from the pages work with the session; nobody logged in is a 401; a bad token is not mended by a session."""
    user = User(1, "curie", "Dr Curie", Role.CLINICIAN, active=True)
    client = connect(None, lambda _: user)
    assert client.get(f"/fhir/ImagingStudy/{STUDY_ID}", headers={"Accept": "text/html"}).json()["id"] == STUDY_ID
    assert audit_rows(filled)[0].actor == "user:curie"
    assert client.get("/fhir/Patient", headers={"Authorization": "Bearer x"}).status_code == 401
    assert connect(None, lambda _: None).get("/fhir/Patient").status_code == 401
    assert connect(None, lambda _: replace(user, active=False)).get("/fhir/Patient").status_code == 401


def test_search_uses_the_indexes(database: Database, numbers: tuple[int, int]) -> None:
    """Tokens go through the GIN index: a search does not read the whole record."""
    with database.session() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO fhir_resource (type, id, version, text, status, codes, identifiers)"
            " SELECT 'Observation', 'o' || n, 1, '{}', 'final', ARRAY['s|' || n], ARRAY['i|' || n]"
            " FROM generate_series(1, 20000) AS n"
        )
        session.connection().exec_driver_sql("ANALYZE fhir_resource")
        (clause,) = parse_query("Observation", [("code", "s|7")]).clauses
        condition = select(tables.FhirResource.id).where(store._condition(clause))
        compiled = condition.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        plan = "\n".join(session.connection().exec_driver_sql(f"EXPLAIN {compiled}").scalars())
    assert "ix_fhir_resource_codes" in plan


def test_the_capability_statement_is_what_the_server_does(filled: Database, connect: Connect) -> None:
    """Every type and parameter that it tells is served without complaint, even strictly."""
    client = connect()
    samples: dict[str, Any] = {"token": "x", "date": "2026", "reference": "x"}
    for resource in client.get("/fhir/metadata").json()["rest"][0]["resource"]:
        for parameter in resource["searchParam"]:
            answer = client.get(
                f"/fhir/{resource['type']}",
                params={parameter["name"]: samples[parameter["type"]]},
                headers={"Prefer": "handling=strict"},
            )
            assert answer.status_code == 200
