"""Trains the finder of burnt-in text: ``python -m inference.training.burnt_in DATA OUTPUT.onnx``.

A small fully convolutional network says of each cell of 4 by 4 pixels how likely it lies in a line of two letters or
more. It learns from pictures without text into which text is drawn while it trains. The shipped weights are of four
runs, each from the one before (`--start`): about 800 batches with 3 % of the hardest cells, then 200 and 1240 with 2 %
at a rate of 3e-3, then 430 with the settings that stand here. After the first, images that turned out to show text were
taken out (`burnt_in_data.SEEN`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inference.burnt_in import CELL
from inference.training.burnt_in_data import TRAIN, pictures
from inference.training.burnt_in_drawing import TRAINING_FONTS, Contrast, Grey, coded, draw_text, styled

SIDE = 128  # pixels of a training picture
_IGNORED = -1.0  # in targets: cells that teach nothing
_FAINTEST = Contrast(25, 1.2)  # fainter than what is to be found
_RING = 5  # pixels around a text that are neither


@dataclass(frozen=True, slots=True)
class FinderSettings:
    """How the finder is trained."""

    steps: int = 4000  # batches
    minutes: float = 25.0  # after which it ends, if that is earlier
    batch_size: int = 32
    learning_rate: float = 2e-3  # highest of the one-cycle schedule
    seed: int = 20261121
    channels: int = 32
    ema_decay: float = 0.995  # of the running average of the weights, by step
    hardest: float = 0.01  # share of the cells without text that count: those most like text


class TextFinder(torch.nn.Module):
    """Levels of 0 to 1, shape (images, 1, rows, columns), to logits, shape (images, 1, rows / 4, columns / 4)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        half = channels // 2

        def layer(given: int, made: int, side: int, *, stride: int = 1, apart: int = 1) -> torch.nn.Sequential:
            around = apart * (side // 2)
            conv = torch.nn.Conv2d(given, made, side, stride=stride, padding=around, dilation=apart, bias=False)
            return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(made), torch.nn.ReLU())

        self.stem = torch.nn.Sequential(layer(1, half, 5, stride=2), layer(half, channels, 3, stride=2))
        self.body = torch.nn.ModuleList([layer(channels, channels, 3, apart=apart) for apart in (1, 1, 2, 3)])
        self.last = torch.nn.Conv2d(channels, 1, 1)
        torch.nn.init.constant_(cast(torch.Tensor, self.last.bias), -4.0)  # text is rare

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """The logits."""
        cells = self.stem(levels * 4.0 - 1.0)
        for layer in self.body:
            cells = cells + layer(cells)
        logits: torch.Tensor = self.last(cells)
        return logits


class Scenes(torch.utils.data.IterableDataset[Any]):
    """Batches without end: pictures, float32 (images, 1, SIDE, SIDE), and targets (images, 1, SIDE/4, SIDE/4)."""

    def __init__(self, greys: list[Grey], kinds: list[str], settings: FinderSettings) -> None:
        self.greys, self.settings = greys, settings
        counts = {kind: kinds.count(kind) for kind in set(kinds)}
        # Each kind as often as its square root says: the few real DICOM series count for more than their number.
        share = np.array([counts[kind] ** -0.5 for kind in kinds])
        self.share = np.cumsum(share / share.sum())

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng(self.settings.seed)
        while True:
            made = [self._scene(rng) for _ in range(self.settings.batch_size)]
            levels = np.stack([grey for grey, _ in made])[:, None].astype(np.float32) / 255
            yield torch.from_numpy(levels), torch.from_numpy(np.stack([target for _, target in made])[:, None])

    def _scene(self, rng: np.random.Generator) -> tuple[Grey, npt.NDArray[np.float32]]:
        source = self.greys[int(np.searchsorted(self.share, rng.random()))]
        return scene(rng, source)


def scene(rng: np.random.Generator, source: Grey) -> tuple[Grey, npt.NDArray[np.float32]]:
    """A part of a picture with text drawn in, and what is to be found: 1 in text, 0 outside, -1 where it is neither."""
    times = int(rng.choice([1, 1, 2]))  # drawn larger and brought down, as the finder looks at large type
    picture = background(rng, source, SIDE * times)
    target = np.zeros((SIDE // CELL, SIDE // CELL), dtype=np.float32)
    if rng.random() < 0.65:
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            size = round(float(np.exp(rng.uniform(np.log(7.5), np.log(26)))) * times)
            chosen = rng.random()
            letters = 1 if chosen < 0.12 else int(rng.integers(2, 4)) if chosen < 0.55 else None
            text, at = styled(rng, picture, TRAINING_FONTS, size, letters, _FAINTEST)
            if rng.random() < 0.1:  # beyond the edge of the training picture: text goes on
                at = (at[0] - int(rng.integers(SIDE * times // 2)), at[1])
            box = draw_text(picture, text, at)
            if box is None:
                continue
            left, top, right, bottom = (value / times for value in (box.left, box.top, box.right, box.bottom))
            long, short = max(right - left, bottom - top), min(right - left, bottom - top)
            if letters == 1:  # as the R and L of films: no text
                continue
            _mark(target, left - _RING, top - _RING, right + _RING, bottom + _RING, _IGNORED)
            if long >= 1.1 * short and short >= 4:
                _mark(target, left, top, right, bottom, 1.0)
    if rng.random() < 0.4:
        picture = coded(picture, int(rng.integers(35, 96)))
    if times > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(times))
    if rng.random() < 0.15:
        picture = 255 - picture
    return picture, target


def background(rng: np.random.Generator, source: Grey, side: int) -> Grey:
    """A square part of the picture at another size and brightness; at times beyond its edge, where it is black."""
    shorter = min(source.shape)
    times = float(np.exp(rng.uniform(np.log(0.6), np.log(2.5)))) * (side / SIDE) * max(1.0, 160 / shorter)
    cut = max(16, round(side / times))
    beyond = cut // 4 if rng.random() < 0.3 else 0
    row = int(rng.integers(-beyond, max(1, source.shape[0] - cut + beyond + 1)))
    column = int(rng.integers(-beyond, max(1, source.shape[1] - cut + beyond + 1)))
    part = Image.fromarray(source).crop((column, row, column + cut, row + cut))
    way = Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.BILINEAR
    grey = np.asarray(part.resize((side, side), way), dtype=np.float32) / 255
    grey = np.clip(grey, 0, 1) ** float(np.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.5:
        grey = grey * float(rng.uniform(0.3, 1.4)) + float(rng.choice([0, rng.uniform(0, 0.3)]))
    if rng.random() < 0.5:
        grey = grey + rng.normal(0, float(rng.uniform(0, 0.04)), grey.shape)
    if rng.random() < 0.5:
        grey = grey[:, ::-1]
    if rng.random() < 0.3:
        grey = np.rot90(grey)
    return np.ascontiguousarray(np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8))


def _mark(target: npt.NDArray[np.float32], left: float, top: float, right: float, bottom: float, value: float) -> None:
    """Set the cells whose middle lies in the box; text that is marked stays."""
    middle = (np.arange(target.shape[0]) + 0.5) * CELL
    inside = ((middle >= top) & (middle < bottom))[:, None] & ((middle >= left) & (middle < right))[None]
    target[inside & (target != 1.0)] = value


def loss_of(logits: torch.Tensor, target: torch.Tensor, hardest: float) -> torch.Tensor:
    """Cross-entropy: the mean over text, plus that over the `hardest` share of what is none."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
    text, none = each[target == 1.0], each[target == 0.0]
    count = max(1, int(none.numel() * hardest))
    return text.mean() + none.topk(count).values.mean() if text.numel() else none.topk(count).values.mean()


def train(data: Path, output: Path, settings: FinderSettings, start: Path | None = None) -> None:
    """Train, and write the network as ONNX and, beside it, its weights."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)  # the other core draws
    known = list(pictures(data, TRAIN))
    scenes = Scenes([one.grey for one in known], [one.kind for one in known], settings)
    network = TextFinder(settings.channels)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        network.load_state_dict(torch.load(start, weights_only=True))
    running: Callable[..., None] = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=running, use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    started = told = time.monotonic()
    losses: list[float] = []
    for step, (levels, target) in enumerate(torch.utils.data.DataLoader(scenes, batch_size=None, num_workers=1)):
        share = max(step / settings.steps, (time.monotonic() - started) / (60 * settings.minutes))
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, share / 0.05) * (0.5 + 0.5 * np.cos(np.pi * share))
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(levels.to(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), target, settings.hardest)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(network)
        losses.append(float(loss.detach()))
        if time.monotonic() - told > 30:
            told = time.monotonic()
            sys.stdout.write(f"{share:.0%} step {step} loss {np.mean(losses[-100:]):.4f}\n")
            sys.stdout.flush()
            torch.save(average.module.state_dict(), output.with_suffix(".pt"))
    save(average.module, output)


def save(network: torch.nn.Module, output: Path) -> None:
    """Write the network as ONNX for any number of rows and columns that four divides, and its weights beside it."""
    torch.save(network.state_dict(), output.with_suffix(".pt"))
    down, across = (torch.export.Dim(name, min=4, max=4096) for name in ("down", "across"))
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 1, 64, 96),),
        str(output),
        input_names=["levels"],
        output_names=["logits"],
        dynamic_shapes=({2: CELL * down, 3: CELL * across},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    # What the exporter says of where each node came from names files of this machine.
    model = onnx.load(output)
    for place in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del place.metadata_props[:]
        place.doc_string = ""
    onnx.save(model, output)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=FinderSettings().steps)
    parser.add_argument("--minutes", type=float, default=FinderSettings().minutes)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    given = parser.parse_args()
    train(given.data, given.output, FinderSettings(steps=given.steps, minutes=given.minutes), given.start)


if __name__ == "__main__":
    main()
