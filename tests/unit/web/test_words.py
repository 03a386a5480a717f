"""How values are said on the pages."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from fhir_records.model import ResultStatus
from fhir_records.renderings import kinds
from web import words
from web.kinds import document_words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^Mary^Dr.^PhD", "Doe, Jane Mary, Dr., PhD"),
        ("DOE", "DOE"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田 太郎)"),
        ("=山田^太郎", "山田 太郎"),
        ("==やまだ^たろう", "やまだ たろう"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "ﾔﾏﾀﾞ, ﾀﾛｳ (山田 太郎)"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "Hong, Gildong (洪 吉洞)"),
        ("Wang^XiaoDong==", "Wang, XiaoDong"),
        ("", "No name given"),
        ("^^^^", "No name given"),
        ("a^b^c^d^e^f^g", "a, b c, d, e"),
    ],
)
def test_names_are_written_as_people_write_them(value: str, said: str) -> None:
    """Components and component groups of a DICOM person name, whole, partial, empty or too many."""
    assert words.person_name(value) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (12000, "12 kB"), (3_400_000, "3.4 MB")]
)
def test_sizes_have_a_fitting_unit(number: int, said: str) -> None:
    """One decimal below ten, none above."""
    assert words.size(number) == said


def test_instants_are_said_in_the_sites_zone() -> None:
    """UTC in, the site's clock out; nothing for no instant."""
    say = words.clock(ZoneInfo("Asia/Kolkata"))
    assert say(dt.datetime(2026, 11, 20, 20, 0, tzinfo=dt.UTC)) == "21 Nov 2026, 01:30"
    assert say(None) == ""


@pytest.mark.parametrize(("value", "shown"), [(0.9312, 93.1), (1.2, 100.0), (-0.1, 0.0)])
def test_a_meter_stays_within_its_scale(value: float, shown: float) -> None:
    """0 to 100, whatever comes."""
    assert words.percent(value) == shown


def test_words_of_programs_are_said_as_people_do() -> None:
    """Names without underscores, where things came from, and details without brackets or Python's words."""
    assert words.plain_name("brain_mr_tumour") == "brain mr tumour"
    assert words.source_words("dicom:CT1") == "CT1, over DICOM"
    assert words.source_words("orthanc:archive") == "archive, from Orthanc"
    assert words.source_words("elsewhere") == "elsewhere"
    assert words.detail_words(["a", "b"]) == "a, b"
    assert [words.detail_words(value) for value in (True, False, None, [], {"read_id": 7}, 3)] == [
        "yes", "no", "–", "–", "read id 7", "3",
    ]  # fmt: skip


def test_every_status_and_every_kind_of_object_has_words() -> None:
    """No page shows the record's own word for one."""
    assert {words.status_words(status) for status in ResultStatus} == set(words.STATUS_WORDS.values())
    for kind in (*kinds.FIRST_SERIES_NUMBER, "rejection_note"):
        assert "_" not in document_words(kind) and document_words(kind)[0].isupper(), kind
