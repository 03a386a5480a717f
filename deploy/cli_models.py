"""``wetread train``, ``wetread evaluate`` and ``wetread models``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from deploy import drift_report, logs
from deploy.cli_agreement import agreement_of_model
from deploy.cli_common import Config, console, database_of, in_words
from deploy.cli_tuning import FromReviews, judged, train_from_reviews
from deploy.model_changes import recorded, told_of
from deploy.settings import load
from fhir_records.errors import BundleError, SettingsError
from fhir_records.store.models import shadow_summary, weekly
from inference.foreign import trained_from_reviews
from inference.registry import Registry, Version

models = typer.Typer(no_args_is_help=True, help="The models of this installation.")


def train(
    output: Annotated[Path, typer.Option(help="Where the bundle is written.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with one sub-folder of images a class, or a CSV: path,label,person.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="The contract to train for; without it that of brain_mr_tumour.")
    ] = None,
    network: Annotated[str, typer.Option(help="Of those that Wetread knows by name.")] = "resnet_small",
    epochs: Annotated[int, typer.Option(min=1)] = 36,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    seed: int = 20261120,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    patience: Annotated[int, typer.Option(min=0, help="Epochs without a better one, then stop; 0: never.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    person: Annotated[
        str | None, typer.Option(help="Pattern of the person in a file's name; else look-alike images stay together.")
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            help="First train so many networks, each without one fold of the data, to judge that fold.",
        ),
    ] = 0,
    taught: Annotated[bool, typer.Option(help="With --folds: their mean teaches the model.")] = False,
    together: Annotated[
        bool, typer.Option(help="With --folds: they become part of the model, which is the mean of all.")
    ] = False,
    baseline: Annotated[
        list[str] | None, typer.Option(help="A baseline to measure on the same split: seed_cnn64 or seed_cnn5.")
    ] = None,
    shipped: Annotated[
        str | None,
        typer.Option(help="A model that comes with Wetread, as it was trained; --data holds its collections."),
    ] = None,
    from_reviews: Annotated[
        Path | None,
        typer.Option(help="An export of reviewed cases: a new version of the model that read them.", metavar="DIR"),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="With --from-reviews: the version to start from; the active one else.")
    ] = None,
    no_record: Annotated[
        bool,
        typer.Option(
            "--no-record",
            help="With --from-reviews, where the record is not: nobody asks whether consent was taken back meanwhile.",
        ),
    ] = False,
    config: Config = None,
) -> None:
    """Train a model and write it as a MONAI bundle, with its metrics on clusters of images that it never saw.

    A run that was broken off goes on where it stopped when it is started again.
    """
    from inference.training.data import SplitSettings
    from inference.training.shipped import shipped_settings
    from inference.training.train import RECIPES, EpochReport, TrainSettings, train_model

    logs.configure("train")
    work = output.with_name(output.name + ".work")
    if from_reviews and (shipped or recipe or folds or person):
        raise typer.BadParameter(
            "--from-reviews goes with --data and --base, not with --shipped, --recipe and the like"
        )
    if (base or no_record) and not from_reviews:
        raise typer.BadParameter("--base and --no-record need --from-reviews")
    if from_reviews:
        with in_words():
            registry = _registry(config)
        asked = FromReviews(from_reviews, output, base, data, seed, threads, not no_record, config)
        train_from_reviews(asked, registry)
        return
    with in_words():
        if shipped:
            settings = shipped_settings(shipped, _given(data), output, work)
        else:
            settings = TrainSettings(
                data=_given(data),
                recipe=recipe or RECIPES / "brain_mr_tumour.toml",
                output=output,
                work=work,
                network=network,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
                device=device,
                patience=patience,
                folds=folds,
                taught=taught,
                together=together,
                baselines=tuple(baseline or ()),
                split=SplitSettings(seed=seed, person=_pattern(person)),
            )
    settings = replace(settings, threads=threads)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with in_words(), Progress(*columns, console=console) as progress:
        task = progress.add_task("Training", total=settings.epochs)

        def report(epoch: EpochReport) -> None:
            words = f"{epoch.stage}loss {epoch.loss:.3f}"
            if epoch.best:  # nothing is held out of what is only trained
                words += f", balanced accuracy {epoch.balanced_accuracy:.3f} (best {epoch.best:.3f})"
            progress.update(task, completed=epoch.epoch, total=epoch.epochs, description=words)

        trained = train_model(settings, report)
    console.print(
        f"Wrote {trained.bundle}: balanced accuracy {trained.metrics.balanced_accuracy:.3f} on images held out."
        f" The report, which shows images of the data, is {work / 'report.html'}."
    )


def _given(data: Path | None) -> Path:
    if data is None:
        raise typer.BadParameter("--data is needed, or --from-reviews")
    return data


def _pattern(person: str | None) -> str:
    try:
        return re.compile(person or "").pattern
    except re.error as error:
        raise typer.BadParameter(f"--person is no regular expression: {error}") from error


def evaluate(
    data: Annotated[
        Path, typer.Option(help="A folder of images; one sub-folder a class, or any with --out-of-scope. Or a CSV.")
    ],
    model: Annotated[str | None, typer.Option(help="A registered model.")] = None,
    version: Annotated[str | None, typer.Option(help="Of that model; the active one where none is given.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Instead: a bundle, on its own validation part of the images it was trained from."),
    ] = None,
    out_of_scope: Annotated[
        bool, typer.Option("--out-of-scope", help="Images that the model should refuse: count those that it does.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """How good a model is on a folder of JPEG, PNG or DICOM images."""
    logs.configure("evaluate", level="WARNING")
    if (model is None) == (bundle is None):
        raise typer.BadParameter("one of --model and --bundle is needed")
    with in_words():
        figures = _of_bundle(bundle, data) if bundle else _of_model(model or "", version, data, out_of_scope, config)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    per_class = figures.pop("per_class", {})
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' ')}: {_short(value)}")
    if per_class:
        names = list(next(iter(per_class.values())))
        table = Table("class", *names)
        for label, values in per_class.items():
            table.add_row(label, *(_short(values[name]) for name in names))
        console.print(table)


def _of_bundle(bundle: Path, data: Path) -> dict[str, Any]:
    from inference.training.train import evaluate_bundle

    metrics = evaluate_bundle(bundle, data)
    return {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "ece": metrics.expected_calibration_error,
    }


def _of_model(name: str, version: str | None, data: Path, out_of_scope: bool, config: Path | None) -> dict[str, Any]:
    from inference.evaluation import evaluate_folder

    registry = _registry(config)
    model = registry.find(name, version) if version else registry.get(name)
    return evaluate_folder(model, data, out_of_scope=out_of_scope)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value)


def _registry(config: Path | None) -> Registry:
    """The installation's models, those that come with Wetread among them."""
    registry = Registry(load(config).models)
    registry.ensure_shipped()
    return registry


@contextmanager
def _changing(action: str, config: Path | None) -> Iterator[tuple[Registry, dict[str, Any]]]:
    """A change of a model, and the detail of its row in the audit trail."""
    with database_of(config) as (_, database):
        registry = _registry(config)
        with recorded(database, registry, action) as detail:
            yield registry, detail


Name = Annotated[str, typer.Argument(help="The model's name.")]
VersionNumber = Annotated[str, typer.Argument(help="As `wetread models list` shows it.")]


@models.command("add")
def add_model(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    contract: Annotated[
        Path | None, typer.Option(help="A contract.toml for a bundle that has none, or in place of its own.")
    ] = None,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--activate/--no-activate",
            help="Whether it becomes the active version of its name; if not said, unless reviewed cases trained it.",
        ),
    ] = None,
    even_if_worse: Annotated[
        bool,
        typer.Option(
            "--even-if-worse", help="Also a version from reviewed cases that was shown to be worse than its base."
        ),
    ] = False,
    config: Config = None,
) -> None:
    """Register a bundle: check it, export it, compare the export with the original, run its golden cases."""
    logs.configure("models", level="WARNING")
    with in_words():
        judged(bundle, even_if_worse=even_if_worse)
    with _changing("model registered", config) as (registry, detail):
        wanted = not trained_from_reviews(bundle) if activate is None else activate
        model = registry.add(bundle, contract=contract, activate=wanted)
        detail.update(told_of(model))
        active = registry.get(model.name).path == model.path
        record = json.loads((model.path / "registered.json").read_text(encoding="utf-8"))
    for back_end, by_class in record["export"]["probability_difference"].items():
        console.print(
            f"{back_end}: no probability differs by more than {max(by_class.values()):.1e} from the original's."
        )
    told = "and active" if active else "and not active"
    console.print(f"{model.name} {model.version} is registered {told}. Device UID {model.device_uid}.")


@models.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, config: Config = None
) -> None:
    """Every version of every model, and which are active or on trial."""
    logs.configure("models", level="WARNING")
    with in_words():
        versions = _registry(config).versions()
    if as_json:
        typer.echo(json.dumps([_listed(version) for version in versions], indent=2))
        return
    table = Table("Name", "Version", "State", "Title", "Device UID")
    for version in versions:
        model = version.model
        state = version.standing.value if model else f"{version.standing.value}, damaged"
        table.add_row(
            version.name, version.version, state, *((model.title, model.device_uid) if model else (version.fault, ""))
        )
    console.print(table)


def _listed(version: Version) -> dict[str, Any]:
    model = version.model
    return {
        "name": version.name,
        "version": version.version,
        "folder": version.folder,
        "state": version.standing.value,
        "title": model.title if model else None,
        "device_uid": model.device_uid if model else None,
        "fault": version.fault or None,
    }


@models.command("verify")
def verify_models(
    name: Annotated[
        str | None, typer.Argument(help="A model; every version of every model where none is given.")
    ] = None,
    version: Annotated[str | None, typer.Argument(help="Of that model; all where none is given.")] = None,
    config: Config = None,
) -> None:
    """Compare every file with what was registered, and run the golden cases again; exit status 1 where one differs."""
    logs.configure("models", level="WARNING")
    faults = 0
    with in_words():
        registry = _registry(config)
        chosen = [entry for entry in registry.versions(name) if version in (None, entry.version, entry.folder)]
        if not chosen:
            raise BundleError(f"There is no version {version!r} of {name}.")
        for entry in chosen:
            try:
                verified = registry.verify(entry.name, entry.folder)
            except BundleError as error:
                faults += 1
                console.print(f"{entry.name} {entry.version}: {error}", markup=False, soft_wrap=True, style="red")
            else:
                console.print(f"{entry.name} {entry.version}: files as registered, {_golden_words(verified)}.")
    if faults:
        raise typer.Exit(1)


def _golden_words(verified: dict[str, Any]) -> str:
    apart = max(verified["since_registration"].values(), default=0.0)
    return f"{verified['cases']} golden cases answered as then (probabilities within {apart:.1e})"


@models.command("activate")
def activate_model(name: Name, version: VersionNumber, config: Config = None) -> None:
    """Make a registered version the one in use. Workers that run take it up with the next study."""
    logs.configure("models", level="WARNING")
    with _changing("model activated", config) as (registry, detail):
        model = registry.activate(name, version)
        detail.update(told_of(model))
    console.print(f"{model.name} {model.version} is active.")


@models.command("rollback")
def rollback_model(name: Name, config: Config = None) -> None:
    """Go back to the version that was in use before."""
    logs.configure("models", level="WARNING")
    with _changing("model rolled back", config) as (registry, detail):
        model = registry.rollback(name)
        detail.update(told_of(model))
    console.print(f"{model.name} {model.version} is active again.")


@models.command("shadow")
def shadow_model(
    name: Name,
    version: Annotated[str | None, typer.Argument(help="The version on trial.")] = None,
    end: Annotated[bool, typer.Option("--end", help="End the trial.")] = False,
    config: Config = None,
) -> None:
    """Let a second version read the same studies; what it says is seen by administrators only."""
    logs.configure("models", level="WARNING")
    if (version is None) != end:
        raise typer.BadParameter("a version is needed, or --end")
    with _changing("model trial ended" if end else "model on trial", config) as (registry, detail):
        model = registry.shadow(name, version)
        detail.update(told_of(model) if model else {"model": name})
    console.print(f"{name} {model.version} is on trial." if model else f"No version of {name} is on trial.")


@models.command("remove")
def remove_model(name: Name, version: VersionNumber, config: Config = None) -> None:
    """Take a version away for good; not one that is active or on trial."""
    logs.configure("models", level="WARNING")
    with _changing("model removed", config) as (registry, detail):
        registry.remove(name, version)
        detail.update(model=name, version=version)
    console.print(f"{name} {version} is removed.")


@models.command("report")
def report_model(
    name: Name,
    html: Annotated[Path | None, typer.Option(help="Write the report as an HTML page.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """A model in use, week by week: drift of its inputs, probabilities, refusals, read time."""
    with database_of(config) as (settings, database):
        registry = Registry(settings.models)
        registry.versions(name)  # which says in words where there is no such model
        with database.session() as session:
            weeks = weekly(session, model=name)
            trials = [trial for trial in shadow_summary(session) if trial.model == name]
        if html is not None:
            _write(html, drift_report.page(name, weeks, trials, settings.file.site.statement))
    if as_json:
        document = {"weeks": [asdict(week) for week in weeks], "trials": [asdict(trial) for trial in trials]}
        typer.echo(json.dumps(document, default=str, indent=2))
        return
    if html is not None:
        console.print(f"Wrote {html}.")
        return
    table = Table(
        Column("Week", no_wrap=True),
        "Version",
        "Reads",
        "Refused",
        "Seconds",
        "PSI brightness",
        "PSI distance",
        "Answers",
    )
    for week in weeks:
        drift = ("–" if psi is None else f"{psi:.3f}" for psi in (week.intensity_psi, week.distance_psi))
        counted = (str(week.reads), str(week.refused), f"{week.seconds_mean:.2f}")
        table.add_row(str(week.week), week.version, *counted, *drift, drift_report.told(week.answers))
    console.print(table if weeks else f"{name} has read no study yet.")


models.command("agreement")(agreement_of_model)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from error
