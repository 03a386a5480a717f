"""Before an export is trained on: what the record says of its cases by now.

People take consent back, and results are rejected or amended, after an export has left. The folder does not change by
that; so whoever trains asks here first, and the answer is in the same pseudonyms as the export.
"""

from __future__ import annotations

import uuid

from sqlalchemy.orm import Session

from fhir_records.pseudonyms import Pseudonyms
from fhir_records.store import consent, review_exports
from fhir_records.store.consent import ConsentPolicy
from fhir_records.store.review_exports import ReviewedCase, ReviewExport
from inference.training.recalled import Recalled
from workflow.reviewed_slices import Passed, why_passed

CHANGED = "a radiologist has signed something else since"


def recalled(session: Session, export_uid: str, policy: ConsentPolicy) -> Recalled:
    """People and images of an export that may not be trained on any more.

    Raises:
        NotFound: the record knows no such export: it was made by another installation.
    """
    export = review_exports.find_export(session, export_uid)
    pseudonyms = Pseudonyms(review_exports.pseudonym_key(session))
    standing = {case.study_uid: case for case in review_exports.reviewed_cases(session, export.model)}
    cases = review_exports.exported_cases(session, export)
    said = consent.consents(session, [case.patient_id for case in cases])
    people: dict[str, str] = {}
    images: dict[str, str] = {}
    for case in cases:
        if not policy.allows(said[case.patient_id]):
            why = Passed.CONSENT.value
            people[pseudonyms.person(case.patient_uid)] = why
        else:
            why = _why(case, standing.get(case.study_uid), export)
        if why:
            names = (pseudonyms.uid(image.sop_uid, image.frame or 1) for image in case.result.images_read)
            images |= {str(uuid.UUID(int=int(name.rpartition(".")[2]))): why for name in names}
    return Recalled(people, images, asked=True)


def _why(case: ReviewedCase, now: ReviewedCase | None, export: ReviewExport) -> str:
    """Why a case no longer is what was exported; "" where it is."""
    if now is None:
        return Passed.REJECTED.value
    # Consent is asked of the person, not of the case.
    why = why_passed(now, allowed=True, include_unchanged=bool(export.options.get("include_unchanged")))
    if why is not None:
        return why.value
    then, today = case.result.finding, now.result.finding
    return "" if then and today and then.label == today.label else CHANGED
