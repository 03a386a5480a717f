"""What a new result does to the ones before it: their reports are named as predecessors, and taken back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy.orm import Session

from fhir_records.jobs import request_withdrawal
from fhir_records.model import EarlierResult, Report, Result, ResultStatus, Withdrawal
from fhir_records.renderings.dicom_sr import KIND, document_uid
from fhir_records.store import deliveries, results, withdrawals
from fhir_records.store.succession import Succession


def in_its_place(session: Session, report: Report, place: Succession) -> Report:
    """The report with what it takes the place of, and since when another one takes its own."""
    earlier = (*place.earlier_versions, *place.older_reads)
    replaces = tuple(_as_written(session, report, entry) for entry in earlier)
    return replace(
        report,
        replaces=tuple(entry for entry in replaces if entry is not None),
        superseded_at=place.superseded_at,
    )


def superseded_reports(session: Session, report: Report, place: Succession) -> Iterable[Report]:
    """The reports of older reads, as superseded ones."""
    for older in place.older_reads:
        found = results.load_report(session, older.id, report.installation)
        yield replace(found, superseded_at=report.result.created_at)


def withdraw_earlier(session: Session, report: Report, place: Succession, now: dt.datetime) -> None:
    """Take back what this result rejects or supersedes, wherever it is."""
    result = report.result
    rejected = result.status is ResultStatus.ENTERED_IN_ERROR
    why = Withdrawal.SUPERSEDED
    if rejected and result.signature is not None:
        why = Withdrawal(result.signature.withdrawal or Withdrawal.REJECTED)
    ids = [entry.id for entry in place.earlier_versions]
    for older in place.older_reads:
        ids += [version.id for version in results.versions_of(session, older.read_id)]
    for delivery_id in withdrawals.withdraw(session, ids, why, now):
        request_withdrawal(session, delivery_id, priority=report.read.priority)


def _as_written(session: Session, report: Report, earlier: Result) -> EarlierResult | None:
    """The structured report of an earlier result, or None where none was written."""
    document = deliveries.find_document(session, earlier.id, KIND, report.destination)
    if document is None:
        return None
    found = results.load_report(session, earlier.id, report.installation)
    return EarlierResult(
        read=found.read,
        version=earlier.version,
        series_uid=document_uid(replace(found, destination=report.destination), "series"),
        sop_uid=document.sop_uid,
        sop_class_uid=document.sop_class_uid,
    )
