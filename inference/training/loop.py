"""The training loop: batches in, averaged weights out, resumable after each epoch. Its one file is the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms.compose import Compose
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fhir_records.errors import TrainingError
from inference.networks import predict
from inference.training.augment import augment_each, augmentation
from inference.training.batch_augment import AugmentSettings, augment_batch, mixed, standardise_batch

Squares = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long and how fast a network is trained."""

    epochs: int = 36
    batch_size: int = 64
    learning_rate: float = 2e-3  # highest of the one-cycle schedule
    weight_decay: float = 0.03
    label_smoothing: float = 0.05
    ema_decay: float = 0.99  # of the running average of the weights, by step
    seed: int = 20261120
    device: str = "cpu"
    half: bool = True  # forward and backward in bfloat16
    look_every: int = 1  # epochs between two looks at the held-out images
    keep_best: bool = True  # the epoch best on the held-out images wins; False: the last one, whatever they say
    patience: int = 0  # looks without a better one after which training stops; 0: never
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    monai: bool = False  # augment with MONAI's transforms, image by image, at their own strength: slower
    taught: float = 0.7  # weight of the teachers' answers in what is aimed at, where there are teachers


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What a watcher of a training run is told after each epoch."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean over the training images
    balanced_accuracy: float  # on the held-out images, at the last look; 0 before the first
    best: float
    seconds_left: float
    stage: str = ""  # which of several networks is being trained


Progress = Callable[[EpochReport], None]


def train_network(
    network: torch.nn.Module,
    squares: Squares,
    labels: Labels,
    held: tuple[Squares, Labels],
    settings: LoopSettings,
    checkpoint: Path,
    progress: Progress | None = None,
    teachers: Sequence[torch.nn.Module] = (),
) -> tuple[dict[str, torch.Tensor], tuple[EpochReport, ...]]:
    """The averaged weights and the history; classes are drawn equally often.

    Where there are `teachers`, the mean of what they say of the very image that the network is shown is aimed at, too
    (Hinton et al., 2015; Beyer et al., CVPR 2022). `checkpoint` is written after every epoch, and a run that finds one
    there goes on from it. Raises TrainingError where it is of another run. The same seed, threads and machine give the
    same weights.
    """
    run = _Run(network, int(labels.max()) + 1, len(labels), settings, teachers)
    weights = torch.from_numpy(1.0 / np.bincount(labels).clip(1)[labels])
    history: list[EpochReport] = []
    best: dict[str, torch.Tensor] = {}
    done = _resume(checkpoint, run, settings)
    if done is not None:
        history, best = [EpochReport(*row) for row in done["history"]], done["best"]
    started, first = time.monotonic(), len(history)
    for epoch in range(first + 1, settings.epochs + 1):
        order = torch.multinomial(weights, run.batches * run.batch_size, replacement=True, generator=run.draw)
        network.train()
        losses = [
            run.step(torch.from_numpy(squares[chosen.numpy()]), torch.from_numpy(labels[chosen.numpy()]))
            for chosen in order.view(run.batches, run.batch_size)
        ]
        score, top = (history[-1].balanced_accuracy, history[-1].best) if history else (0.0, 0.0)
        if epoch % settings.look_every == 0 or epoch == settings.epochs:
            score = balanced_accuracy(predict(run.averaged.module, held[0]), held[1]) if len(held[1]) else 0.0
            if score >= top or not settings.keep_best or not best:
                best = {name: value.detach().cpu().clone() for name, value in run.averaged.module.state_dict().items()}
            top = max(top, score)
        left = (time.monotonic() - started) / (epoch - first) * (settings.epochs - epoch)
        history.append(EpochReport(epoch, settings.epochs, float(np.mean(losses)), score, top, left))
        _keep(checkpoint, run, settings, history, best)
        if progress is not None:
            progress(history[-1])
        if settings.patience and _stale(history, settings):
            break
    return best, tuple(history)


class _Run:
    """What changes while a network is trained."""

    def __init__(
        self,
        network: torch.nn.Module,
        classes: int,
        images: int,
        settings: LoopSettings,
        teachers: Sequence[torch.nn.Module],
    ) -> None:
        self.settings, self.classes = settings, classes
        self.teachers = [_placed(teacher, settings.device).eval() for teacher in teachers]
        self.network = _placed(network, settings.device)
        running: Callable[..., None] = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(network, multi_avg_fn=running, use_buffers=True)
        rate, decay = settings.learning_rate, settings.weight_decay
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
        self.batch_size = min(settings.batch_size, images)
        self.batches = images // self.batch_size
        steps = max(10, settings.epochs * self.batches)  # below ten the schedule's phases have no length
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=steps, pct_start=0.2)
        self.draw = torch.Generator().manual_seed(settings.seed)
        self.transform: Compose | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by name."""
        return {
            "network": self.network,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def step(self, squares: torch.Tensor, labels: torch.Tensor) -> float:
        """One step of the optimizer on a batch of shape (images, size, size); the loss."""
        settings = self.settings
        images = self._augmented(squares.float()[:, None] / 255.0)
        wanted = torch.nn.functional.one_hot(labels, self.classes).float()
        wanted = wanted * (1 - settings.label_smoothing) + settings.label_smoothing / self.classes
        images, wanted = mixed(standardise_batch(images), wanted, settings.augment.mixup, self.draw)
        images = images.to(settings.device).to(memory_format=torch.channels_last)
        wanted = wanted.to(settings.device)
        with torch.autocast(settings.device.split(":")[0], torch.bfloat16, enabled=settings.half):
            logits = self.network(images)
            if self.teachers:
                wanted = (1 - settings.taught) * wanted + settings.taught * self._taught(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        self.averaged.update_parameters(self.network)
        return float(loss.detach())

    def _taught(self, images: torch.Tensor) -> torch.Tensor:
        """The teachers' mean probabilities, shape (images, classes)."""
        with torch.no_grad():
            said = [torch.softmax(teacher(images).float(), dim=1) for teacher in self.teachers]
        return torch.stack(said).mean(dim=0)

    def _augmented(self, images: torch.Tensor) -> torch.Tensor:
        if not self.settings.monai:
            return augment_batch(images, self.settings.augment, self.draw)
        if self.transform is None:
            self.transform = augmentation(images.shape[-1])
            self.transform.set_random_state(self.settings.seed)
        return augment_each(images, self.transform)


def _placed(network: torch.nn.Module, device: str) -> torch.nn.Module:
    placed: torch.nn.Module = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def balanced_accuracy(logits: npt.NDArray[np.float32], labels: Labels) -> float:
    """Mean over the classes present of the share of their images that are called right."""
    called = logits.argmax(axis=1)
    return float(np.mean([(called[labels == label] == label).mean() for label in np.unique(labels)]))


def _stale(history: list[EpochReport], settings: LoopSettings) -> bool:
    looks = [report.balanced_accuracy for report in history if report.epoch % settings.look_every == 0]
    return len(looks) - 1 - max(range(len(looks)), key=lambda i: (looks[i], -i)) >= settings.patience


def _keep(
    checkpoint: Path,
    run: _Run,
    settings: LoopSettings,
    history: list[EpochReport],
    best: dict[str, torch.Tensor],
) -> None:
    state = {name: part.state_dict() for name, part in run.parts.items()}
    rows = [astuple(report) for report in history]
    aside = checkpoint.with_suffix(".new")
    torch.save(
        {**state, "draw": run.draw.get_state(), "settings": repr(settings), "history": rows, "best": best}, aside
    )
    aside.replace(checkpoint)


def _resume(checkpoint: Path, run: _Run, settings: LoopSettings) -> dict[str, Any] | None:
    if not checkpoint.exists():
        return None
    stored: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    if stored["settings"] != repr(settings):
        raise TrainingError(f"{checkpoint.name} is of a run with other settings; remove it to begin again.")
    for name, part in run.parts.items():
        part.load_state_dict(stored[name])
    run.draw.set_state(stored["draw"])
    return stored
