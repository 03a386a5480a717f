"""The page of agreement with people: who may look, what may be asked, and what it says of few and of none."""

from __future__ import annotations

import datetime as dt
import re
from html import unescape
from zoneinfo import ZoneInfo

import pytest

from fhir_records.database import Database
from fhir_records.model import Act, Role
from tests.answered import MODEL, SKYRA, answer, sign
from tests.integration.web.forms import Enter

PAGE = "/admin/agreement"
KOLKATA = ZoneInfo("Asia/Kolkata")


def words_of(html: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).replace("\u00a0", " ")


def review(database: Database, agreeing: int, *, at: dt.datetime | None = None) -> None:
    """So many answers that stand, one that is corrected, one that is rejected, and two that nobody signed."""
    at = at or dt.datetime.now(dt.UTC)
    with database.session() as session:
        for _ in range(agreeing):
            sign(session, answer(session, at=at, equipment=SKYRA))
        sign(session, answer(session, at=at), Act.CORRECT, label="notumor", note="Artefact of <flow>.")
        sign(session, answer(session, "notumor", at=at), Act.REJECT)
        for _ in range(2):
            answer(session, "pituitary", at=at)


def test_those_who_sign_and_those_who_look_after_models_may_look(enter: Enter, database: Database) -> None:
    """A clinician is turned away in words, and finds no link; nobody logged in is asked to log in."""
    review(database, 3)
    for role in (Role.RADIOLOGIST, Role.ADMIN):
        client = enter(role)
        assert f'href="{PAGE}"' in client.get("/").text
        assert client.get(PAGE).status_code == 200
    clinician = enter(Role.CLINICIAN)
    assert f'href="{PAGE}"' not in clinician.get("/").text
    refused = clinician.get(PAGE)
    assert refused.status_code == 403
    assert "a radiologist or an admin" in refused.text
    clinician.cookies.clear()
    assert clinician.get(PAGE).status_code == 303


def test_the_page_says_what_was_counted(enter: Enter, database: Database) -> None:
    """The share with its interval, what it is of, the scanner, and the study where a person disagreed."""
    review(database, 8)
    html = enter().get(PAGE).text
    words = words_of(html)
    for expected in (
        "80 % 8 of 10; interval of 95 %: 49 to 94 %",
        "Of 12 answers 10 were reviewed and compared; 2 are not signed",
        "SIEMENS Skyra MR1, serial number 40123 8 of 8 100 % 68 to 100 %",
        "Sensitivity 8 of 8",
        "Specificity 0 of 1 too few",
        "Artefact of <flow>.",
    ):
        assert expected in words, expected
    assert html.count('class="share"') == 2  # one week, and the legend
    assert "Artefact of &lt;flow&gt;." in html


def test_a_cell_leads_to_its_studies_alone(enter: Enter, database: Database) -> None:
    """The address of a cell lists what was corrected so, or rejected, and nothing else."""
    review(database, 5)
    client = enter()
    addresses = [
        unescape(found) for found in re.findall(r'<td class="cell [^"]+"><a href="([^"#]+)', client.get(PAGE).text)
    ]
    assert len(addresses) == 2
    for address, wanted, other in (
        (addresses[0], "Artefact of", "rejected it"),
        (addresses[1], "rejected it", "Artefact of"),
    ):
        listed = words_of(client.get(address).text.split('id="disagreements"')[1])
        assert wanted in listed
        assert other not in listed.split("Show all")[1]


def test_disagreements_are_paged_and_the_filters_stay(enter: Enter, database: Database) -> None:
    """Every disagreement is on exactly one page, those signed last first, within the cell and the days asked for."""
    at = dt.datetime(2026, 11, 16, 8, tzinfo=dt.UTC)
    with database.session() as session:
        for number in range(120):
            corrected = answer(session, at=at)
            # Three at a time share the instant of signing.
            sign(
                session,
                corrected,
                Act.CORRECT,
                label="notumor",
                note=f"No. {number}.",
                at=at + dt.timedelta(hours=number // 3),
            )
        sign(session, answer(session, at=at), Act.CORRECT, label="meningioma", note="Another cell.")
        sign(session, answer(session, at=at - dt.timedelta(days=9)), Act.CORRECT, label="notumor", note="Other days.")
    client = enter()
    cell = {"model": MODEL, "from": "2026-11-10", "to": "2026-11-20", "machine": "glioma", "person": "notumor"}
    text = client.get(PAGE, params=cell).text
    assert 'id="newest"' not in text
    seen: list[int] = []
    for size in (50, 50, 20):
        listed = text.split('id="disagreements"')[1]
        found = [int(number) for number in re.findall(r"No\. (\d+)\.", listed)]
        assert len(found) == size and "Another cell" not in listed and "Other days" not in listed
        assert "Only where the model said" in listed
        seen += found
        older = re.search(r'id="older" href="([^"]+)"', listed)
        assert (older is None) == (size == 20)
        if older:
            assert unescape(older[1]).endswith("#disagreements")
            text = client.get(unescape(older[1])).text
    assert sorted(seen) == list(range(120))
    assert [number // 3 for number in seen] == sorted((number // 3 for number in range(120)), reverse=True)
    newest = re.search(r'id="newest" href="([^"]+)"', text)
    assert newest and "No. 119." in client.get(unescape(newest[1])).text


def test_of_fewer_than_five_there_is_no_figure(enter: Enter, database: Database) -> None:
    """Four are said to be too few, and drawn without a point."""
    review(database, 2)
    html = enter().get(PAGE).text
    assert "Too few to say" in html
    assert html.count('class="share"') == 1  # the legend's


def test_unsigned_and_empty_times_say_so(enter: Enter, database: Database) -> None:
    """An installation without answers, one without signatures, and days without reads each have a hint."""
    client = enter()
    assert "No model has answered yet" in client.get(PAGE).text
    with database.session() as session:
        answer(session, at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert "Nothing was read in this time" in client.get(PAGE).text
    assert "Nobody has signed one of them yet" in client.get(PAGE, params={"from": ""}).text


def test_days_are_those_of_the_site(enter: Enter, database: Database) -> None:
    """The last minute of a day is in, the first of the next one is not, by the site's clock."""
    midnight = dt.datetime(2026, 11, 17, tzinfo=KOLKATA)
    with database.session() as session:
        answer(session, at=midnight - dt.timedelta(minutes=1))
        answer(session, at=midnight)
        answer(session, at=midnight + dt.timedelta(days=1))
    client = enter()
    for days, number in ((("2026-11-16", "2026-11-16"), 1), (("2026-11-17", ""), 2), (("", "2026-11-17"), 2)):
        words = words_of(client.get(PAGE, params={"from": days[0], "to": days[1]}).text)
        assert f"Of {number} answer" in words, days


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"model": "nobody"}, 404, "No model of this name"),
        ({"version": "9"}, 400, "Allowed: 1.0.0."),
        ({"from": "yesterday"}, 400, "a date such as 2026-11-16"),
        ({"to": "0001-01-01"}, 400, "from 1900-01-01"),
        ({"rejected": "perhaps"}, 400, "not allowed"),
        ({"before": "yesterday-1"}, 400, "start again from the newest"),
        ({"before": "20261121T101010.000000-99999999999999999999"}, 400, "start again from the newest"),
    ],
)
def test_what_cannot_be_asked_is_answered_in_words(
    enter: Enter, database: Database, asked: dict[str, str], status: int, words: str
) -> None:
    """An unknown model or version, and a day that is none, get a page that says what is allowed."""
    with database.session() as session:
        answer(session)
    answered = enter().get(PAGE, params={"model": MODEL, **asked})
    assert answered.status_code == status
    assert words in answered.text
