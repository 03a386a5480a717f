"""Searchset Bundles (R4 3.1.1.3), joined from the resources' stored texts: nothing is parsed or serialised again."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from urllib.parse import urlencode

from fhir_records.fhir_api.search import Query


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource as it is served."""

    type: str
    id: str
    version: int
    last_updated: dt.datetime
    text: str  # JSON, with meta.versionId and meta.lastUpdated
    study_uid: str | None = None  # of the study that it belongs to, for the audit trail


@dataclass(frozen=True, slots=True)
class Page:
    """What a search found."""

    resources: tuple[StoredResource, ...]
    total: int  # matches on all pages
    next_cursor: str | None  # None: this is the last page


def searchset(base_url: str, query: Query, page: Page) -> str:
    """The text of the Bundle that answers a search.

    The self link holds the parameters that were used and no other, so that the client sees which ones were not.
    """
    links = [{"relation": "self", "url": _url(base_url, query, query.used)}]
    if page.next_cursor is not None:
        used = (*query.used, ("_cursor", page.next_cursor))
        links.append({"relation": "next", "url": _url(base_url, query, used)})
    entries = ",".join(_entry(base_url, resource) for resource in page.resources)
    return (
        f'{{"resourceType":"Bundle","type":"searchset","total":{page.total},"link":{json.dumps(links)}'
        + (f',"entry":[{entries}]' if entries else "")
        + "}"
    )


def _url(base_url: str, query: Query, parameters: tuple[tuple[str, str], ...]) -> str:
    return f"{base_url}/{query.type}" + (f"?{urlencode(parameters)}" if parameters else "")


def _entry(base_url: str, resource: StoredResource) -> str:
    url = json.dumps(f"{base_url}/{resource.type}/{resource.id}")
    return f'{{"fullUrl":{url},"resource":{resource.text},"search":{{"mode":"match"}}}}'
