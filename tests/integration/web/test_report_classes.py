"""Pages say in which SR class a report went to each destination, and what a destination does not take."""

from __future__ import annotations

import re
from pathlib import Path

from fhir_records.database import Database
from fhir_records.model import Role
from tests.integration.signed_results import Bench
from tests.integration.sr_classes import ENHANCED, Picky, Way
from tests.integration.web.forms import Enter, csrf


def plain(text: str) -> str:
    """A page's words without its marks."""
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_the_study_page_says_which_class_was_delivered(enter: Enter, database: Database, tmp_path: Path) -> None:
    """Each class that was offered stands there with what became of it, in words."""
    bench = Bench(database, tmp_path)
    bench.read()
    Way(bench, {"pacs": Picky({ENHANCED})}).deliver()
    page = plain(enter().get(f"/studies/{bench.study_uid}").text)
    for words in (
        "Structured report (Comprehensive 3D SR)",
        "pacs is not offered Comprehensive 3D SR, or does not take it: it goes as Comprehensive SR.",
        "pacs is not offered Comprehensive SR, or does not take it: it goes as Enhanced SR.",
        "Structured report (Enhanced SR)",
    ):
        assert words in page, words
    assert re.search(r"Structured report \(Enhanced SR\) [^:]*? Delivered · pacs", page)


def test_the_administrator_sees_what_a_destination_does_not_take(
    enter: Enter, database: Database, tmp_path: Path
) -> None:
    """The classes that it refused stand beside its name; a refused report names its class; "try again" forgets them."""
    bench = Bench(database, tmp_path)
    bench.read()
    Way(bench, {"pacs": Picky(set())}).deliver()
    browser = enter(Role.ADMIN)
    text = browser.get("/admin").text
    page = plain(text)
    for name in ("Comprehensive 3D SR", "Comprehensive SR", "Enhanced SR"):
        assert f"takes no {name}, as it said" in page, name
    assert "Structured report (Enhanced SR) refused" in page
    (number,) = {int(found) for found in re.findall(r"/admin/deliveries/(\d+)/retry", text)}
    answer = browser.post(f"/admin/deliveries/{number}/retry", data={"csrf_token": csrf(browser, "/admin")})
    assert answer.status_code in (200, 303)
    assert "takes no" not in plain(browser.get("/admin").text)


def test_the_report_page_names_its_class(enter: Enter, database: Database, tmp_path: Path) -> None:
    """The stand-in can be read like the report that was rendered."""
    bench = Bench(database, tmp_path)
    bench.read()
    Way(bench, {"pacs": Picky({ENHANCED})}).deliver()
    browser = enter()
    links = re.findall(r'href="(/studies/[^"]+/sr/\d+/text)"', browser.get(f"/studies/{bench.study_uid}").text)
    assert len(links) == 3
    read = [plain(browser.get(link).text) for link in links]
    for name in ("Comprehensive 3D SR", "Comprehensive SR", "Enhanced SR"):
        assert sum(f"Structured report ({name})" in text for text in read) == 1, name
    trees = {text.partition("Language of Content Item")[2] for text in read}
    assert len(trees) == 1 and "Glioma" in trees.pop()
