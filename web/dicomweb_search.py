"""QIDO-RS over HTTP (PS3.18 section 10.6): studies, series and instances, below each other or all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fhir_records.model import Instance
from fhir_records.store import image_search
from web.dicomweb_answers import SERIES_FIELDS, STUDY_FIELDS, instance_json, series_json, study_json
from web.dicomweb_archive import Archive
from web.dicomweb_attributes import as_text
from web.dicomweb_json import Json
from web.dicomweb_query import (
    INSTANCE_KEYS,
    MAX_OBJECTS,
    MAX_STUDIES,
    SERIES_KEYS,
    STUDY_KEYS,
    Question,
    image_query,
)
from web.dicomweb_requests import attributes_answer, need_attributes

STUDY = "/studies/{study_uid}"
SERIES = STUDY + "/series/{series_uid}"


def search_routes(router: APIRouter, archive: Archive) -> None:
    """Add the search resources."""

    @router.get("/studies")
    def studies(request: Request) -> Response:
        return _Studies(request, archive).answer()

    @router.get("/series")
    @router.get(STUDY + "/series")
    def series(request: Request) -> Response:
        return _Series(request, archive).answer()

    @router.get("/instances")
    @router.get(STUDY + "/instances")
    @router.get(SERIES + "/instances")
    def instances(request: Request) -> Response:
        return _Instances(request, archive).answer()


class _Search:
    """One search of one level."""

    keys: frozenset[str]
    most: int

    def __init__(self, request: Request, archive: Archive) -> None:
        self.request = request
        self.archive = archive
        self.kind = need_attributes(request)
        archive.reader.prepare()
        self.study_uid: str | None = request.path_params.get("study_uid")
        self.series_uid: str | None = request.path_params.get("series_uid")
        self.question = Question(request.query_params, self.keys)
        archive.check(self.study_uid, self.series_uid)
        most = self.most if self.study_uid is None else None
        self.query = image_query(self.question, archive.zone, most, self.study_uid, self.series_uid)
        self.base = archive.base(request)

    def answer(self) -> Response:
        """The page that is asked for, and what it leaves out in warnings; 204 where nothing was found."""
        answers: list[str] = []
        warnings = self.question.warnings
        if self.query is not None:
            answers, total = self.found(self.query)
            more = total - self.query.offset - len(answers)
            if answers and more > 0:
                warnings.append(f"There are {more} additional results that can be requested")
        headers = {"Warning": ", ".join(f'299 wetread "{words}"' for words in warnings)} if warnings else {}
        if not answers:
            return Response(status_code=204, headers=headers)
        return attributes_answer(answers, self.kind, headers)

    def found(self, query: image_search.ImageQuery) -> tuple[list[str], int]:
        """The answers as JSON text, and how many there are in all."""
        raise NotImplementedError

    def studies_above(self, uids: Iterable[str]) -> dict[str, Json]:
        """The attributes of the studies, where the path names none (PS3.18 table 10.6.1-5)."""
        if self.study_uid is not None:
            return {}
        with self.archive.database.session() as session:
            found = image_search.studies_named(session, uids)
        return {uid: study_json(study, self.base, self.archive.zone) for uid, study in found.items()}

    def asked_of_one(self, fields: frozenset[int], known: Json, series: bool) -> frozenset[int]:
        """Those of ``fields`` that the record does not know, and one object can tell for all."""
        allowed = SERIES_FIELDS if series else STUDY_FIELDS
        return (fields & allowed) - {int(tag, 16) for tag in known}

    def with_one(self, answers: list[Json], examples: Sequence[Instance | None], series: bool) -> list[str]:
        """The answers, each with what is asked for besides, from one of its objects."""
        fields = self.question.fields
        wanted = self.asked_of_one(fields, answers[0], series) if fields and answers else frozenset()
        if not wanted:
            return [as_text(answer) for answer in answers]
        there = [one for one in examples if one is not None]
        texts = iter(self.archive.attributes(self.request, there, wanted))
        more = [json.loads(next(texts) or "{}") if one is not None else {} for one in examples]
        return [as_text(dict(sorted((extra | answer).items()))) for extra, answer in zip(more, answers, strict=True)]


class _Studies(_Search):
    keys = STUDY_KEYS
    most = MAX_STUDIES

    def found(self, query: image_search.ImageQuery) -> tuple[list[str], int]:
        with self.archive.database.session() as session:
            found = image_search.search_studies(session, query)
            total = _total(query, len(found)) or image_search.count_studies(session, query)
            fields = self.question.fields
            uids = [study.study_uid for study in found]
            examples = image_search.one_of_each(session, uids) if fields and fields & STUDY_FIELDS else {}
        answers = [study_json(study, self.base, self.archive.zone) for study in found]
        return self.with_one(answers, [examples.get((uid, "")) for uid in uids], False), total


class _Series(_Search):
    keys = STUDY_KEYS | SERIES_KEYS
    most = MAX_OBJECTS

    def found(self, query: image_search.ImageQuery) -> tuple[list[str], int]:
        with self.archive.database.session() as session:
            found = image_search.search_series(session, query)
            total = _total(query, len(found)) or image_search.count_series(session, query)
            fields = self.question.fields
            uids = [(one.study_uid, one.series_uid) for one in found]
            examples = {}
            if fields and fields & SERIES_FIELDS:
                examples = image_search.one_of_each(session, (uid for uid, _ in uids), (uid for _, uid in uids))
        above = self.studies_above(one.study_uid for one in found)
        answers = [above.get(one.study_uid, {}) | series_json(one, self.base) for one in found]
        return self.with_one(answers, [examples.get(uid) for uid in uids], True), total


class _Instances(_Search):
    keys = STUDY_KEYS | SERIES_KEYS | INSTANCE_KEYS
    most = MAX_OBJECTS

    def found(self, query: image_search.ImageQuery) -> tuple[list[str], int]:
        with self.archive.database.session() as session:
            found = image_search.search_instances(session, query)
            total = _total(query, len(found)) or image_search.count_instances(session, query)
            series = {}
            if self.series_uid is None:
                series = image_search.series_named(session, ((one.study_uid, one.series_uid) for one in found))
        above = self.studies_above(one.study_uid for one in found)
        of_series = {uid: series_json(one, self.base) for uid, one in series.items()}
        answers = []
        for one in found:
            answer = above.get(one.study_uid, {}) | of_series.get((one.study_uid, one.series_uid), {})
            answers.append(answer | instance_json(one, self.archive.address(self.request, one)))
        fields = self.question.fields
        if fields is not None and not fields:
            return [as_text(answer) for answer in answers], total
        texts = self.archive.attributes(self.request, found, fields)
        merged = (json.loads(text or "{}") | answer for text, answer in zip(texts, answers, strict=True))
        return [as_text(dict(sorted(answer.items()))) for answer in merged], total


def _total(query: image_search.ImageQuery, count: int) -> int:
    """How many there are in all, where a page of ``count`` tells; 0: it has to be counted."""
    whole = query.limit is None or count < query.limit
    return query.offset + count if whole and (count or not query.offset) else 0
