"""What a structured report says of the person who signed it: verifying observer, person observer, predecessors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import highdicom.sr as hd
import numpy as np
from pydicom.dataset import Dataset

from fhir_records.model import Code, EarlierResult, Region, Report, Signature, Signer
from fhir_records.renderings import codes
from fhir_records.renderings.dicom_file import lo, utc
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.source_header import put

# Type 1, so something must stand there where the site has configured no name (PS3.3 table C.17-2).
NO_ORGANIZATION: Final = "Organization not configured"

_OBSERVATION_CONTEXT: Final = hd.RelationshipTypeValues.HAS_OBS_CONTEXT


def verifying_observer(signature: Signature) -> Dataset:
    """The item of Verifying Observer Sequence (PS3.3 section C.17.2): who, of which organization, and when."""
    signer = signature.signer
    item = Dataset()
    put(item, "VerifyingObserverName", signer.name)
    # Type 2: present, with no item where the site has given the person no code.
    code = signer.identification
    item.VerifyingObserverIdentificationCodeSequence = [] if code is None else [concept(code)]
    put(item, "VerifyingOrganization", lo(signer.organization) or NO_ORGANIZATION)
    item.VerificationDateTime = utc(signature.signed_at)
    return item


def person_observer(signer: Signer) -> list[hd.ContentItem]:
    """TID 1002 and TID 1003: the observer is this person."""
    observer_type = hd.CodeContentItem(
        concept(codes.OBSERVER_TYPE), concept(codes.PERSON), relationship_type=_OBSERVATION_CONTEXT
    )
    # The name is put in afterwards: highdicom warns of names with it, quoting them.
    name = hd.PnameContentItem(concept(codes.PERSON_OBSERVER_NAME), "A^B", relationship_type=_OBSERVATION_CONTEXT)
    put(name, "PersonName", signer.name)
    items: list[hd.ContentItem] = [observer_type, name]
    for about, text in _texts(signer):
        items.append(hd.TextContentItem(concept(about), text, relationship_type=_OBSERVATION_CONTEXT))
    return items


def marked_region(region: Region) -> hd.ImageRegion:
    """The rectangle as a closed polyline on its image (TID 1410, PS3.3 section C.18.6.1.2)."""
    right, bottom = region.left + region.width, region.top + region.height
    corners = [
        (region.left, region.top),
        (right, region.top),
        (right, bottom),
        (region.left, bottom),
        (region.left, region.top),
    ]
    image = region.image
    frames = None if image.frame is None else [image.frame]
    source = hd.SourceImageForRegion(image.sop_class_uid, image.sop_uid, frames)
    return hd.ImageRegion(hd.GraphicTypeValues.POLYLINE, np.array(corners, dtype=np.float64), source)


def predecessors(report: Report) -> list[Dataset]:
    """Items of Predecessor Documents Sequence (PS3.3 section C.17.2): one study, each series once."""
    series: dict[str, list[EarlierResult]] = {}
    for earlier in report.replaces:
        series.setdefault(earlier.series_uid, []).append(earlier)
    study = Dataset()
    study.StudyInstanceUID = report.study.study_uid
    study.ReferencedSeriesSequence = [_series(uid, members) for uid, members in series.items()]
    return [study]


def _series(series_uid: str, members: Iterable[EarlierResult]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series_uid
    item.ReferencedSOPSequence = []
    for earlier in members:
        reference = Dataset()
        reference.ReferencedSOPClassUID = earlier.sop_class_uid
        reference.ReferencedSOPInstanceUID = earlier.sop_uid
        item.ReferencedSOPSequence.append(reference)
    return item


def _texts(signer: Signer) -> Iterable[tuple[Code, str]]:
    if signer.organization:
        yield codes.PERSON_OBSERVER_ORGANIZATION, signer.organization
