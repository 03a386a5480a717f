"""How the bundles that come with Wetread were trained, so that anyone with the collections can train them again."""

from __future__ import annotations

from pathlib import Path

from fhir_records.errors import TrainingError
from inference.preprocess import PreprocessSettings
from inference.registry import SHIPPED
from inference.training.batch_augment import AugmentSettings
from inference.training.data import SplitSettings
from inference.training.train import RECIPES, TrainSettings

PERSON = r"(person\d+|NORMAL2-IM-\d+|IM-\d+)"  # the person in the file names of the chest film collection


def shipped_settings(name: str, data: Path, output: Path, work: Path) -> TrainSettings:
    """The settings of a shipped bundle; `data` holds the folders `anatomy`, `brain_mr` and `chest_xr`.

    Raises TrainingError for a name that no shipped bundle has.
    """
    recipe = RECIPES / f"{name}.toml"
    frame = PreprocessSettings(margin=0.0, crop="frame")
    if name == "anatomy":
        return TrainSettings(
            data,
            recipe,
            output,
            work,
            network="resnet_tiny",
            anatomy=True,
            epochs=12,
            seed=3,
            keep_best=False,
            preprocess=PreprocessSettings(size=64, margin=0.0, crop="frame"),
            augment=AugmentSettings(rotate=0.25, translate=0.06, invert=0.05, coarsen=0.4, smooth=0.2),
        )
    if name == "chest_xr_pneumonia":
        return TrainSettings(
            data / "chest_xr",
            recipe,
            output,
            work,
            epochs=9,
            learning_rate=1.5e-3,
            seed=5,
            keep_best=False,
            warm_start=SHIPPED / "brain_mr_tumour",
            mirror=True,
            preprocess=frame,
            split=SplitSettings(person=PERSON),
            augment=AugmentSettings(rotate=0.15, translate=0.08, scale=0.2, invert=0.0, coarsen=0.2, mixup=0.1),
        )
    if name == "brain_mr_tumour":
        return TrainSettings(
            data / "brain_mr",
            recipe,
            output,
            work,
            epochs=14,
            learning_rate=1.2e-3,
            seed=11,
            augment=AugmentSettings(mixup=0.1),
            for_good=True,
            split_of=SHIPPED / name,
            mirror=True,
        )
    raise TrainingError(
        f"No shipped bundle is called {name!r}; there are anatomy, brain_mr_tumour, chest_xr_pneumonia."
    )
