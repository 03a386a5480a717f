"""How the bundles that come with Wetread were trained, so that anyone with the collections can train them again."""

from __future__ import annotations

from pathlib import Path

from fhir_records.errors import TrainingError
from inference.preprocess import PreprocessSettings
from inference.registry import SHIPPED
from inference.training.batch_augment import AugmentSettings
from inference.training.data import SplitSettings
from inference.training.train import RECIPES, TrainSettings

# What a network that has learned the heads needs no more of, cut down: the slices to come are like these.
_LIGHT = AugmentSettings(
    rotate=0.3,
    translate=0.06,
    invert=0.03,
    curve=0.2,
    gamma=0.3,
    bias=0.15,
    smooth=0.15,
    noise=0.2,
    holes=0.25,
    mixup=0.2,
)

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
        # From the version before, for a while longer; beside it, networks that never saw a fifth of the clusters.
        return TrainSettings(
            data / "brain_mr",
            recipe,
            output,
            work,
            epochs=30,
            learning_rate=1.5e-3,
            seed=99,
            augment=_LIGHT,
            for_good=True,
            split_of=SHIPPED / name,
            warm_start=SHIPPED / name,
            folds=5,
            folds_trained=2,
            fold_epochs=40,
            together=True,
            baselines=("seed_cnn64", "seed_cnn5"),
        )
    raise TrainingError(
        f"No shipped bundle is called {name!r}; there are anatomy, brain_mr_tumour, chest_xr_pneumonia."
    )
