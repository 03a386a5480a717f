from __future__ import annotations

import datetime as dt
import json
from urllib.parse import parse_qsl, urlsplit

from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome

from fhir_records.fhir_api.bundles import Page, StoredResource, searchset
from fhir_records.fhir_api.capability import capability_statement
from fhir_records.fhir_api.outcome import Issue, outcome
from fhir_records.fhir_api.parameters import PARAMETERS
from fhir_records.fhir_api.search import parse_query

BASE = "http://wetread.example/fhir"
TEXT = '{"resourceType":"Patient","id":"p1","name":[{"text":"Ωμέγα, \\"x\\""}]}'


def stored(id: str) -> StoredResource:
    return StoredResource("Patient", id, 1, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), TEXT)


def test_a_bundle_holds_the_stored_texts_as_they_are() -> None:
    """Entries are the stored JSON, byte for byte, with address and search mode."""
    query = parse_query("Patient", [("identifier", "a b|c&d"), ("colour", "red"), ("_count", "1")])
    text = searchset(BASE, query, Page((stored("p1"),), 3, "CURSOR"))
    assert TEXT in text
    bundle = json.loads(text)
    Bundle.model_validate(bundle)
    assert bundle["total"] == 3
    assert bundle["entry"][0]["fullUrl"] == f"{BASE}/Patient/p1"
    assert bundle["entry"][0]["search"] == {"mode": "match"}
    links = {link["relation"]: parse_qsl(urlsplit(link["url"]).query) for link in bundle["link"]}
    assert links["self"] == [("identifier", "a b|c&d"), ("_count", "1")]
    assert links["next"] == [*links["self"], ("_cursor", "CURSOR")]


def test_a_bundle_without_matches_has_no_entry() -> None:
    """FHIR knows no empty list; the last page has no next link."""
    bundle = json.loads(searchset(BASE, parse_query("Patient", []), Page((), 0, None)))
    assert bundle == {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 0,
        "link": [{"relation": "self", "url": f"{BASE}/Patient"}],
    }


def test_the_capability_statement_tells_the_table() -> None:
    """Types, parameters and interactions are those of the search, and no more."""
    statement = json.loads(capability_statement(BASE, "1.2.3"))
    CapabilityStatement.model_validate(statement)
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["kind"] == "instance"
    (rest,) = statement["rest"]
    assert rest["mode"] == "server"
    told = {entry["type"]: {param["name"] for param in entry["searchParam"]} for entry in rest["resource"]}
    assert told == {type: {parameter.name for parameter in PARAMETERS[type]} for type in PARAMETERS}
    for entry in rest["resource"]:
        assert {interaction["code"] for interaction in entry["interaction"]} == {"read", "search-type"}
        assert entry["readHistory"] is False
        for parameter in entry["searchParam"]:
            assert parameter["definition"].startswith("http://hl7.org/fhir/SearchParameter/")


def test_every_outcome_is_a_valid_resource() -> None:
    """Each kind of issue is one that R4 has."""
    for issue in Issue:
        OperationOutcome.model_validate_json(outcome(issue, 'a "word"'))
