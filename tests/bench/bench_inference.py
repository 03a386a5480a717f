"""How fast the networks are, and a whole read of a series in the model's process.

    python -m tests.bench.bench_inference [SERIES_FOLDER]

Networks are compared in one run, 2 threads, with MONAI's eager fp32 of the same network: the ratio is what carries over
to another machine, the absolute figures are this one's. The order is shuffled in every round, so that another load on
the machine meets all alike.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from inference.backends.onnx import OnnxBackend
from inference.backends.openvino import OpenVinoBackend, installed
from inference.reading import ImageFile
from inference.registry import RegisteredModel, Registry
from inference.runner import ModelRunner

THREADS = 2
ROUNDS = 9
BATCH = 32
READS = 5
DENSENET = {
    "_target_": "monai.networks.nets.DenseNet121",
    "spatial_dims": 2,
    "in_channels": 1,
    "pretrained": False,
}
EFFICIENTNET = {
    "_target_": "monai.networks.nets.EfficientNetBN",
    "model_name": "efficientnet-b0",
    "spatial_dims": 2,
    "in_channels": 1,
    "pretrained": False,
}


def main(series: Path | None) -> None:
    """Run it and print tables."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "models")
        registry.ensure_shipped()
        model = registry.get("brain_mr_tumour")
        network, size = eager(model), model.contract.preprocess.size
        compare("brain_mr_tumour, as shipped", network, model.path / "model.onnx", size)
        for name, definition in (("efficientnet-b0", EFFICIENTNET), ("densenet121", DENSENET)):
            exported = Path(folder) / f"{name}.onnx"
            compare(name, random_network(definition, exported), exported, 224)
        batching(model)
        if series is not None:
            reads(model, series)


def eager(model: RegisteredModel) -> Callable[[np.ndarray], np.ndarray]:
    """The registered model's own network in torch."""
    from inference.export import load_network

    return called(load_network(model.path, len(model.contract.classes)))


def random_network(definition: dict[str, object], target: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A network of MONAI's with random weights, exported to `target` as registering exports it."""
    import torch

    from inference.networks import build_network

    torch.manual_seed(0)
    network = build_network(definition, 4).eval()
    torch.onnx.export(
        network,
        (torch.zeros(2, 1, 224, 224),),
        str(target),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    return called(network)


def called(network: object) -> Callable[[np.ndarray], np.ndarray]:
    """A torch network as a function of arrays."""
    import torch

    torch.set_num_threads(THREADS)

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(inputs)).numpy()  # type: ignore[operator]

    return run


def compare(name: str, network: Callable[[np.ndarray], np.ndarray], exported: Path, size: int) -> None:
    """Images a second of each way to run one network, and how far its logits are from torch's."""
    inputs = np.random.default_rng(0).normal(size=(BATCH, 1, size, size)).astype(np.float32)
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {"MONAI eager fp32": network}
    onnx = OnnxBackend(exported, THREADS)
    ways["ONNX Runtime fp32"] = lambda batch: onnx.run(batch).logits
    if installed():
        fast = OpenVinoBackend(exported, THREADS)
        ways[f"OpenVINO {fast.precision}"] = lambda batch: fast.run(batch).logits
    truth = network(inputs)
    apart = {way: float(np.abs(run(inputs) - truth).max()) for way, run in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in random.sample(list(ways), len(ways)):
            started = time.perf_counter()
            ways[way](inputs)
            seconds[way].append(time.perf_counter() - started)
    print(f"\n{name}, {size}x{size}, batches of {BATCH}, {THREADS} threads, median of {ROUNDS}")
    for way, taken in seconds.items():
        ratios = [own / other for own, other in zip(seconds["MONAI eager fp32"], taken, strict=True)]
        print(
            f"  {way:<20} {BATCH / statistics.median(taken):7.0f} images/s   x {statistics.median(ratios):4.1f} "
            f"({min(ratios):.1f} to {max(ratios):.1f})   logits differ by {apart[way]:.2g}"
        )


def batching(model: RegisteredModel) -> None:
    """Images a second by the size of the batch."""
    backend, size = OnnxBackend(model.path / "model.onnx", THREADS), model.contract.preprocess.size
    print("\nONNX Runtime by size of batch")
    for batch in (1, 4, 16, 64):
        inputs = np.zeros((batch, 1, size, size), np.float32)
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            backend.run(inputs)
            taken.append(time.perf_counter() - started)
        print(f"  {batch:>3} images {batch / statistics.median(taken):7.0f} images/s")


def reads(model: RegisteredModel, series: Path) -> None:
    """Whole reads in the child process, its start and the network's apart, and its memory."""
    files = series_files(series)
    with ModelRunner(threads=THREADS) as runner:
        started = time.perf_counter()
        runner.read(model, files[:1])
        start = time.perf_counter() - started
        taken, used = [], []
        for _ in range(READS):
            before, started = processor_seconds(runner.process_id), time.perf_counter()
            runner.read(model, files)
            taken.append(time.perf_counter() - started)
            used.append(processor_seconds(runner.process_id) - before)
        peak = peak_memory(runner.process_id)
    print(f"\nread of {len(files)} images, {THREADS} threads: median of {READS}")
    print(f"  start of process and network {start:5.2f} s")
    print(f"  a read  {statistics.median(taken):5.2f} s ({min(taken):.2f} to {max(taken):.2f})")
    print(f"  processor time of a read {statistics.median(used):5.2f} s, on {THREADS} cores")
    print(f"  peak memory {peak:.0f} MiB")


def series_files(series: Path) -> list[ImageFile]:
    """The objects in a folder as a worker would name them."""
    files = []
    for path in sorted(path for path in series.rglob("*") if path.is_file()):
        ds = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
        )
        files.append(ImageFile(str(path), ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID))
    return files


def processor_seconds(pid: int | None) -> float:
    """User and system time of a process so far; Linux alone tells."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def peak_memory(pid: int | None) -> float:
    """MiB, as Linux tells."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
