"""Which person a study belongs to: found by identifier, never merged by guess (design, section 4).

Every function takes the caller's session and leaves committing to it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence, Set
from dataclasses import dataclass

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.identities import new_patient_uid
from fhir_records.model import Identifier

NO_IDENTIFIER = "The images carry no patient identifier."
OTHER_BIRTH_DATE = "This patient identifier is known with another birth date."
OTHER_SEX = "This patient identifier is known with another sex."
OTHER_PATIENT = "Objects of this study name different patients."


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """What an object says about its patient."""

    identifier: Identifier | None  # None: PatientID is missing or empty
    name: str  # as in DICOM
    birth_date: dt.date | None
    sex: str  # M, F, O or ""


@dataclass(frozen=True, slots=True)
class Settled:
    """The patient of a study, and why a person must look at it, if one must."""

    patient: tables.Patient
    hold_reason: str | None


def settle_patients(session: Session, identities: Sequence[PatientIdentity]) -> list[Settled]:
    """The patients that ``identities`` mean: found, made, or provisional ones where only a person can tell.

    Two transactions that make the same patient at once: the later one fails on the unique key, and is to be repeated.
    """
    known = _by_identifier(session, {identity.identifier for identity in identities if identity.identifier is not None})
    settled = [_settle(session, identity, known) for identity in identities]
    session.flush()
    return settled


def contradiction(patient: tables.Patient, identity: PatientIdentity) -> str | None:
    """Why ``identity`` cannot be this patient, in words; None where nothing does. Empty values never contradict."""
    if patient.birth_date and identity.birth_date and patient.birth_date != identity.birth_date:
        return OTHER_BIRTH_DATE
    if patient.sex and identity.sex and patient.sex != identity.sex:
        return OTHER_SEX
    return None


def fill_in(patient: tables.Patient, identity: PatientIdentity) -> None:
    """Take over what the record does not know yet."""
    patient.birth_date = patient.birth_date or identity.birth_date
    patient.sex = patient.sex or identity.sex
    patient.name = patient.name or identity.name


def check_study_patient(session: Session, study: tables.Study, identity: PatientIdentity) -> None:
    """Hold ``study``, under a provisional patient, when another of its objects names another patient."""
    patient = study.patient
    if study.hold_reason is not None or identity.identifier is None:
        return
    known = {Identifier(row.value, row.issuer) for row in patient.identifiers}
    if known and identity.identifier not in known:
        reason: str | None = OTHER_PATIENT
    else:
        reason = contradiction(patient, identity)
    if reason is None:
        fill_in(patient, identity)
        return
    first = PatientIdentity(next(iter(known), None), patient.name, patient.birth_date, patient.sex)
    study.patient = provisional_patient(session, first)
    study.hold_reason = reason


def _settle(session: Session, identity: PatientIdentity, known: dict[Identifier, tables.Patient]) -> Settled:
    if identity.identifier is None:
        return Settled(_new_patient(session, identity, provisional=True), NO_IDENTIFIER)
    patient = known.get(identity.identifier)
    if patient is None:
        known[identity.identifier] = patient = _new_patient(session, identity, provisional=False)
        return Settled(patient, None)
    reason = contradiction(patient, identity)
    if reason is not None:
        return Settled(_new_patient(session, identity, provisional=True), reason)
    fill_in(patient, identity)
    return Settled(patient, None)


def provisional_patient(session: Session, identity: PatientIdentity) -> tables.Patient:
    """A patient that stands for one study until a person has decided."""
    patient = _new_patient(session, identity, provisional=True)
    session.flush()
    return patient


def _by_identifier(session: Session, identifiers: Set[Identifier]) -> dict[Identifier, tables.Patient]:
    if not identifiers:
        return {}
    entry = tables.PatientIdentifier
    # Locked, so that two objects that fill in different values do not overwrite each other's; in one order.
    rows = session.execute(
        select(entry.value, entry.issuer, tables.Patient)
        .join(entry.patient)
        .where(
            tuple_(entry.value, entry.issuer).in_([(found.value, found.issuer) for found in identifiers]),
            entry.provisional.is_(False),
        )
        .order_by(tables.Patient.id)
        .with_for_update(of=tables.Patient)
    )
    return {Identifier(value, issuer): patient for value, issuer, patient in rows.tuples()}


def _new_patient(session: Session, identity: PatientIdentity, *, provisional: bool) -> tables.Patient:
    patient = tables.Patient(
        patient_uid=new_patient_uid(),
        name=identity.name,
        birth_date=identity.birth_date,
        sex=identity.sex,
        provisional=provisional,
    )
    if identity.identifier is not None:
        patient.identifiers.append(
            tables.PatientIdentifier(
                value=identity.identifier.value, issuer=identity.identifier.issuer, provisional=provisional
            )
        )
    session.add(patient)
    return patient
