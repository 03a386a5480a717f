"""The worklist over HTTP, its search, its paging and its refreshing."""

from __future__ import annotations

import itertools
import re

import pytest
from sqlalchemy import Executable, insert, select, update

from fhir_records import signing, tables
from fhir_records.database import Database
from fhir_records.errors import QueryError
from fhir_records.model import Act, DeliveryState, ReadState, Role, Signer, StudyState, Withdrawal
from fhir_records.store import withdrawals
from fhir_records.store.studies import derive_state
from fhir_records.store.worklist import WorklistQuery, worklist
from tests import seed
from tests.integration.web.forms import Enter


def test_an_empty_worklist_says_what_to_do(enter: Enter) -> None:
    """AE title, host, port and an example command."""
    text = enter().get("/").text
    assert "wetread send FOLDER --to WETREAD@127.0.0.1:11112" in text and "make demo" in text


def test_the_worklist_shows_each_study_with_its_state_and_finding(enter: Enter, database: Database) -> None:
    """Newest first; findings, refusals and failures in words; names as people write them; times in the site's zone."""
    with database.session() as session:
        seed.every_state(session)
    text = enter().get("/").text
    names = [
        "Rossi, Anna",
        "Okafor, Ada",
        "Smith, Adam",
        "Nguyen, Thi",
        "O&#39;Neil, Sam",
        "Müller, Jörg, Dr.",
        "Yamada, Tarou (山田 太郎)",
        "García, María Luz",
    ]
    positions = [text.index(name) for name in names]
    assert positions == sorted(positions)
    for words in (
        "Glioma of the brain: present, probability 93\u00a0%",
        "No neoplasm of the brain (probability 97\u00a0%)",
        "Not read, because the study has CT images and this model reads MR only",
        "was killed after 120 s.",
        "No rule asks for a read",
        "delivered to pacs",
        "waiting for pacs",
        "refused by pacs",
        "held",
        "20 Nov 2026, 15:01",
        "Asia/Kolkata",
    ):
        assert words in text, words


def test_an_idle_worklist_is_answered_with_304(enter: Enter, database: Database) -> None:
    """The part that refreshes itself brings its own ETag, and is sent again only when something changed."""
    with database.session() as session:
        seed.read_study(session, 1)
    client = enter()
    first = client.get("/worklist/rows")
    again = client.get("/worklist/rows", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["etag"].strip('"') in first.text


@pytest.mark.parametrize(
    "change",
    [
        update(tables.Study).values(hold_reason="Other sex."),
        update(tables.Study).values(last_arrival_at=seed.NOW),  # written with each image
        update(tables.Patient).values(name="Roe^Richard"),
        update(tables.Read).values(state=ReadState.FAILED),
        update(tables.Delivery).values(state=DeliveryState.REFUSED),
        insert(tables.Result).from_select(
            ["read_id", "version", "status", "content"],
            select(tables.Result.read_id, 2, tables.Result.status, tables.Result.content),
        ),
    ],
)
def test_whatever_changes_on_the_worklist_is_seen_at_the_next_refreshing(
    enter: Enter, database: Database, change: Executable
) -> None:
    """A change of the study, its patient, its read, its result or its delivery gives a new ETag."""
    with database.session() as session:
        seed.read_study(session, 1)
    client = enter()
    tag = client.get("/worklist/rows").headers["etag"]
    with database.session() as session:
        session.execute(change)
    assert client.get("/worklist/rows", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("okafor", {7}),
        ("ada okaf", {7}),
        ("山田", {2}),
        ("ACC0003", {3}),
        ("PID004", {4}),
        ("%", set()),
        ("smith okafor", set()),
    ],
)
def test_the_search_finds_names_identifiers_and_accession_numbers(
    database: Database, words: str, found: set[int]
) -> None:
    """All words must fit; wildcards of SQL are only characters."""
    with database.session() as session:
        seed.every_state(session)
        page = worklist(session, WorklistQuery(words=words))
    assert {int(row.study.accession_number[3:]) for row in page.rows} == found


def test_paging_shows_every_study_once_though_new_ones_come(database: Database) -> None:
    """The place in the list is a study, not a number of lines."""
    with database.session() as session:
        for number in range(1, 8):
            seed.add_study(session, number)
        first = worklist(session, WorklistQuery(), size=3)
        seed.add_study(session, 8)
        second = worklist(session, WorklistQuery(before=first.older), size=3)
        third = worklist(session, WorklistQuery(before=second.older), size=3)
    seen = [[int(row.study.accession_number[3:]) for row in page.rows] for page in (first, second, third)]
    assert seen == [[7, 6, 5], [4, 3, 2], [1]]
    assert third.older == ""


def test_a_page_that_was_made_up_is_refused_in_words(enter: Enter, database: Database) -> None:
    """A bad cursor or state is the asker's mistake, not ours."""
    with database.session() as session, pytest.raises(QueryError):
        worklist(session, WorklistQuery(before="yesterday"))
    client = enter()
    assert client.get("/?before=yesterday").status_code == 400
    assert client.get("/?state=bored").status_code == 400


def test_the_state_filter_agrees_with_the_state_shown(database: Database) -> None:
    """The states that SQL filters by are the ones that `derive_state` gives, over all combinations."""
    combinations = list(
        itertools.product([True, False], [0, 1], [0, 1], [(), *((a,) for a in ReadState), tuple(ReadState)])
    )
    with database.session() as session:
        for number, (still_open, revision, routed, reads) in enumerate(combinations, start=1):
            study = seed.add_study(session, number, images=0)
            study.open_since = seed.NOW if still_open else None
            study.revision, study.routed_revision = revision, min(routed, revision)
            for index, state in enumerate(reads):
                seed.add_read(session, study, state).model_version = str(index)
                session.flush()
        session.flush()
        shown = {}
        for state in StudyState:
            page = worklist(session, WorklistQuery(state=state), size=500)
            assert {row.study.state for row in page.rows} <= {state}
            shown.update({row.study.accession_number: state for row in page.rows})
    assert len(shown) == len(combinations)
    for number, (still_open, revision, routed, reads) in enumerate(combinations, start=1):
        expected = derive_state(
            still_open=still_open, revision=revision, routed_revision=min(routed, revision), reads=reads
        )
        assert shown[f"ACC{number:04}"] is expected


def test_the_list_says_who_signed_and_what_is_to_be_taken_back(enter: Enter, database: Database) -> None:
    """A machine's word is preliminary, a person's carries the name; what should be gone from a PACS is named there."""
    with database.session() as session:
        seed.read_study(session, 1)
        rejected = seed.read_study(session, 2)
        assert rejected.read_id is not None and rejected.result_id is not None
        signer = Signer("curie", "Curie^Marie", "Dr Marie Curie", "", None)
        wanted = signing.SigningRequest(rejected.study_uid, rejected.read_id, 1, Act.REJECT)
        signing.sign(session, wanted, signer, seed.NOW)
        withdrawals.withdraw(session, [rejected.result_id], Withdrawal.REJECTED, seed.NOW)
    newer, older = re.findall(r'<tr class="study.*?</tr>', enter().get("/").text, re.S)
    assert "rejected by Dr Marie Curie" in newer and "said in-error" in newer and 'role="meter"' not in newer
    assert "to be taken back from pacs" in newer
    assert ">preliminary<" in older and "delivered to pacs" in older


def test_the_administrator_is_told_of_all_that_needs_attention(enter: Enter, database: Database) -> None:
    """Objects held back, to be taken back, and missing files stand in the line above the list, each with its place."""
    with database.session() as session:
        held, gone = seed.read_study(session, 1, delivery=DeliveryState.REFUSED), seed.read_study(session, 2)
        session.get_one(tables.Document, held.document_id).faults = ["Rows is missing; its type is 1."]
        session.get_one(tables.Delivery, gone.delivery_id).state = DeliveryState.WITHDRAWAL_OPEN
        session.scalars(select(tables.Instance).limit(1)).one().missing_since = seed.NOW
    text = enter(Role.ADMIN).get("/").text
    for where, words in (
        ("gate", "1 object held back"),
        ("withdrawals", "1 object to be taken back"),
        ("missing", "1 missing file"),
    ):
        assert f'<a href="/admin#{where}">{words}</a>' in text
