"""``wetread consent`` and ``wetread reviews``: whose reviewed cases may train models, and their export."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli_common import Config, console, database_of
from fhir_records.errors import SettingsError
from fhir_records.identities import is_patient_uid
from fhir_records.model import Consent
from fhir_records.store import consent as consents
from fhir_records.store.consent import ConsentPolicy, PatientConsent


def consent(
    patient_uid: Annotated[str, typer.Argument(help="Patient UID: 13 digits.", metavar="PATIENT_UID")],
    given: Annotated[bool, typer.Option("--given", help="The patient agrees.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="The patient refuses, or takes consent back.")] = False,
    said_by: Annotated[str, typer.Option(help="Who said so: the patient, or who speaks for the patient.")] = "patient",
    config: Config = None,
) -> None:
    """Whether a patient's reviewed cases may train models: record it, or say what is recorded."""
    if given and refused:
        raise typer.BadParameter("--given or --refused, not both")
    with database_of(config) as (settings, database), database.session() as session:
        if not is_patient_uid(patient_uid):
            raise SettingsError("That is no Patient UID: 13 digits, of which the last checks the others.")
        if given or refused:
            state = Consent.GIVEN if given else Consent.REFUSED
            stands = consents.record_consent(
                session, patient_uid, state, said_by=said_by, recorded_by="command line"
            )
        else:
            stands = consents.patient_consent(session, patient_uid)
        policy = ConsentPolicy(settings.file.training.consent)
    _say(stands, policy)


def _say(stands: PatientConsent, policy: ConsentPolicy) -> None:
    newest = stands.statements[0] if stands.statements else None
    how = f", said by {newest.said_by}, recorded {newest.recorded_at:%Y-%m-%d %H:%M} UTC" if newest else ""
    allowed = "may be exported" if policy.allows(stands.state) else "are not exported"
    console.print(f"Consent to training is {stands.state.value}{how}. Cases {allowed} (consent = {policy.value}).")
    if stands.is_to_be_followed:
        console.print("Exports that hold cases of this patient; tell whoever has them:", style="yellow")
    for export in stands.exports:
        words = f"{export.exported_at:%Y-%m-%d}  {export.export_uid}  {export.folder}  {export.model}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
