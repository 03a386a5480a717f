"""``wetread train``, ``wetread evaluate`` and ``wetread models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from deploy import logs
from deploy.cli_common import Config, console, in_words
from deploy.settings import load

models = typer.Typer(no_args_is_help=True, help="The models of this installation.")


def train(
    data: Annotated[Path, typer.Option(help="A folder with one sub-folder of images a class.")],
    output: Annotated[Path, typer.Option(help="Where the bundle is written.")],
    recipe: Annotated[
        Path | None, typer.Option(help="The contract to train for; without it that of brain_mr_tumour.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 36,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    seed: int = 20261120,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Train a model and write it as a MONAI bundle, with its metrics on clusters of images that it never saw."""
    from inference.training.train import RECIPES, EpochReport, TrainSettings, train_model

    logs.configure("train")
    settings = TrainSettings(
        data=data,
        recipe=recipe or RECIPES / "brain_mr_tumour.toml",
        output=output,
        work=output.with_name(output.name + ".work"),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        threads=threads,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with in_words(), Progress(*columns, console=console) as progress:
        task = progress.add_task("Training", total=epochs)

        def report(epoch: EpochReport) -> None:
            words = f"loss {epoch.loss:.3f}, balanced accuracy {epoch.balanced_accuracy:.3f} (best {epoch.best:.3f})"
            progress.update(task, completed=epoch.epoch, description=words)

        trained = train_model(settings, report)
    console.print(
        f"Wrote {trained.bundle}: balanced accuracy {trained.metrics.balanced_accuracy:.3f} on validation clusters."
    )


def evaluate(
    bundle: Annotated[Path, typer.Option(help="A bundle that `wetread train` has written.")],
    data: Annotated[Path, typer.Option(help="The images that it was trained from.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A bundle's figures on its own validation clusters, computed again."""
    from inference.training.train import evaluate_bundle

    logs.configure("evaluate", level="WARNING")
    with in_words():
        metrics = evaluate_bundle(bundle, data)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "accuracy": metrics.accuracy,
                    "balanced_accuracy": metrics.balanced_accuracy,
                    "ece": metrics.expected_calibration_error,
                }
            )
        )
        return
    console.print(
        f"accuracy {metrics.accuracy:.3f}, balanced accuracy {metrics.balanced_accuracy:.3f},"
        f" expected calibration error {metrics.expected_calibration_error:.3f}"
    )


@models.command("add")
def add_model(bundle: Path, config: Config = None) -> None:
    """Register a bundle: check it, export it, and make it the active version of its name."""
    from inference.registry import Registry

    logs.configure("models", level="WARNING")
    with in_words():
        model = Registry(load(config).models).add(bundle)
    console.print(f"{model.name} {model.version} is registered and active. Device UID {model.device_uid}.")


@models.command("list")
def list_models(config: Config = None) -> None:
    """The active version of every model."""
    from inference.registry import Registry

    logs.configure("models", level="WARNING")
    with in_words():
        registry = Registry(load(config).models)
        registry.ensure_shipped()
        table = Table("Name", "Version", "Title", "Device UID")
        for model in registry.list():
            table.add_row(model.name, model.version, model.title, model.device_uid)
    console.print(table)
