"""``wetread consent`` and ``wetread reviews``: whose reviewed cases may train models, and their export."""

from __future__ import annotations

import datetime as dt
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from deploy import wiring
from deploy.cli_common import Config, console, database_of
from fhir_records.errors import SettingsError
from fhir_records.identities import is_patient_uid
from fhir_records.model import Consent
from fhir_records.store import consent as consents
from fhir_records.store.consent import ConsentPolicy, PatientConsent
from fhir_records.store.review_exports import exports as all_exports

reviews = typer.Typer(no_args_is_help=True, help="Reviewed cases as training data.")


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
            stands = consents.record_consent(session, patient_uid, state, said_by=said_by, recorded_by="command line")
        else:
            stands = consents.patient_consent(session, patient_uid)
        policy = ConsentPolicy(settings.file.training.consent)
    _say(stands, policy)


def _say(stands: PatientConsent, policy: ConsentPolicy) -> None:
    newest = stands.statements[0] if stands.statements else None
    how = f", said by {newest.said_by}, recorded {newest.recorded_at:%Y-%m-%d %H:%M} UTC" if newest else ""
    allowed = "may be exported" if policy.allows(stands.state) else "are not exported"
    console.print(
        f"Consent to training is {stands.state.value}{how}. Cases {allowed} (consent = {policy.value}).",
        markup=False,
        soft_wrap=True,
    )
    if stands.is_to_be_followed:
        console.print("Exports that hold cases of this patient; tell whoever has them:", style="yellow")
    for export in stands.exports:
        words = f"{export.exported_at:%Y-%m-%d}  {export.export_uid}  {export.folder}  {export.model}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)


@reviews.command("export")
def export_reviews(
    output: Annotated[Path, typer.Option(help="The folder to write, which is not there yet.")],
    model: Annotated[str, typer.Option(help="Whose cases; needed where people have signed results of several.")] = "",
    since: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only what was signed on that day or later.")
    ] = None,
    include_unchanged: Annotated[
        bool, typer.Option("--include-unchanged", help="Also answers that were accepted as they were.")
    ] = False,
    per_study: Annotated[int, typer.Option(min=1, max=200, help="Most images of a study in which nothing is.")] = 16,
    skip_heads: Annotated[
        bool, typer.Option("--skip-heads", help="Leave out CT, MR and PET slices of heads, or of nobody knows what.")
    ] = False,
    show_refused: Annotated[
        Path | None,
        typer.Option(help="Write pictures of images with text to this new folder, not in the export: for you alone."),
    ] = None,
    config: Config = None,
) -> None:
    """Write reviewed cases, de-identified, as training data: images, labels.csv, a data card."""
    from workflow.review_export import ExportRequest, ExportReviews  # with libraries that no role needs

    with database_of(config) as (settings, database):
        zone = ZoneInfo(settings.file.site.timezone)
        request = ExportRequest(
            output=output,
            model=model,
            since=since.replace(tzinfo=zone) if since else None,
            include_unchanged=include_unchanged,
            per_study=per_study,
            skip_heads=skip_heads,
            show_refused=show_refused,
        )
        policy = ConsentPolicy(settings.file.training.consent)
        export = ExportReviews(database, wiring.spool_of(settings).path, policy, wiring.now, version("wetread"))
        columns = (TextColumn("Cases"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=None)
            done = export(request, lambda number, total: progress.update(task, completed=number, total=total))
    per_label = ", ".join(f"{label} {number}" for label, number in sorted(done.by_label.items()))
    console.print(
        f"Wrote {output}: {done.export.images} images of {done.people} people ({per_label})."
        f" Export {done.export.export_uid}.",
        markup=False,
        soft_wrap=True,
    )
    for kind, left_out in (("cases", done.passed), ("images", done.refused)):
        for why, number in sorted(left_out.items()):
            console.print(f"Left out, {kind}: {number}, because: {why}", markup=False, soft_wrap=True)


@reviews.command("list")
def list_exports(config: Config = None) -> None:
    """The exports that were made."""
    with database_of(config) as (_, database), database.session() as session:
        table = Table(
            "When", Column("Export", no_wrap=True, min_width=36), "Model", "Folder", "Results", "Images", "By"
        )
        for export in all_exports(session):
            counts = (str(len(export.result_ids)), str(export.images))
            named = (str(export.export_uid), export.model, escape(export.folder))
            table.add_row(f"{export.exported_at:%Y-%m-%d %H:%M}", *named, *counts, export.asked_by)
    console.print(table)
