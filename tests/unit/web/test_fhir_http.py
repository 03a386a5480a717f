from __future__ import annotations

import json

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fhir_records.database import Database
from web.fhir_http import fhir_router

# Nobody listens there: what is answered without the database is answered all the same.
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(fhir_router(Database(NOWHERE), public_url="http://wetread.example/", version="1.2.3"))
    return TestClient(app)


def issue(text: str) -> str:
    resource = json.loads(text)
    assert resource["resourceType"] == "OperationOutcome"
    return str(resource["issue"][0]["code"])


def test_metadata_is_open_and_true_to_its_address(client: TestClient) -> None:
    """Anybody may ask what the server is; FHIR JSON comes back, not to be cached."""
    answer = client.get("/fhir/metadata")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["implementation"]["url"] == "http://wetread.example/fhir"


@pytest.mark.parametrize("path", ["/fhir/Patient", "/fhir/Patient/1", "/fhir/Nonsense", "/fhir/Nonsense/1"])
def test_without_a_token_nothing_is_told(client: TestClient, path: str) -> None:
    """401 with an OperationOutcome and the way to log in, whatever is asked for."""
    answer = client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert issue(answer.text) == "login"


def test_a_database_that_is_away_is_a_503(client: TestClient) -> None:
    """The client learns that trying again may help, and nothing about the database."""
    answer = client.get("/fhir/Patient", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert issue(answer.text) == "transient"
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/fhir", "/fhir/Patient", "/fhir/Patient/1", "/fhir/metadata", "/fhir/Patient/1/x"])
def test_other_methods_are_not_allowed(client: TestClient, method: str, path: str) -> None:
    """405 with an OperationOutcome that says what there is."""
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert issue(answer.text) == "not-supported"


@pytest.mark.parametrize("path", ["/fhir", "/fhir/", "/fhir/Patient/1/_history/1", "/fhir/a/b/c/d"])
def test_nothing_is_told_about_addresses_that_are_not_there(client: TestClient, path: str) -> None:
    """404 with an OperationOutcome; history is not kept and not claimed."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert issue(answer.text) == "not-found"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/fhir+json", 200),
        ("application/fhir+json; fhirVersion=4.0", 200),
        ("application/json", 200),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200),
        ("*/*", 200),
        ("", 200),
        ("application/fhir+xml", 406),
        ("application/fhir+json; fhirVersion=5.0", 406),
        ("application/fhir+json;q=0, application/fhir+xml", 406),
        ("image/png", 406),
    ],
)
def test_only_json_of_fhir_4_0_is_spoken(client: TestClient, accept: str, status: int) -> None:
    """Browsers get JSON, too; whoever takes only XML or another FHIR version is told so."""
    assert client.get("/fhir/metadata", headers={"Accept": accept}).status_code == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("_format=json", 200),
        ("_format=application/fhir+json", 200),
        ("_format=application%2Ffhir%2Bjson", 200),
        ("_format=xml", 406),
        ("_format=text/turtle", 406),
    ],
)
def test_format_in_the_address_beats_the_header(client: TestClient, query: str, status: int) -> None:
    """_format decides, even where its plus sign came unescaped."""
    answer = client.get(f"/fhir/metadata?{query}", headers={"Accept": "application/fhir+xml"})
    assert answer.status_code == status


def test_a_form_must_be_a_form(client: TestClient) -> None:
    """A search by POST with another body is refused before anything is read."""
    assert client.post("/fhir/Patient/_search", json={}).status_code == 415


def test_a_form_has_a_limit(client: TestClient) -> None:
    """A body without end does not fill the memory."""
    answer = client.post("/fhir/Patient/_search", data={"identifier": "x" * 70_000})
    assert answer.status_code == 413
    assert issue(answer.text) == "too-long"


def test_an_inner_error_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with an OperationOutcome, without the error's own words."""

    def broken(_: object) -> None:
        raise RuntimeError("SECRET of a patient")

    app = FastAPI()
    app.include_router(fhir_router(Database(NOWHERE), public_url="http://wetread.example", version="1", person=broken))
    answer = TestClient(app).get("/fhir/Patient")
    assert answer.status_code == 500
    assert issue(answer.text) == "exception"
    assert "SECRET" not in answer.text
