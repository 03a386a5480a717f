"""The runner outlives whatever its child does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_records.errors import ModelFailed
from inference.answers import Refused
from inference.reading import ImageFile
from inference.registry import RegisteredModel
from inference.runner import ModelRunner

_CHILDREN = "tests.unit.inference.children."
_IMAGES = [ImageFile("/nowhere/1.dcm", "1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.4")]


def _limited(model: RegisteredModel, seconds: float = 60, megabytes: int = 4096) -> RegisteredModel:
    contract = replace(model.contract, time_limit_s=seconds, memory_limit_mb=megabytes)
    return replace(model, contract=contract)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _running(pid: int) -> bool:
    """Whether the process still runs; one that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _child(runner: ModelRunner) -> int:
    assert runner.process_id is not None
    return runner.process_id


def test_a_child_that_hangs_is_killed_at_its_time_limit(tiny_model: RegisteredModel) -> None:
    """A read that passes the time limit fails in words, soon after the limit, and no process is left."""
    with ModelRunner(module=_CHILDREN + "hangs") as runner:
        started = time.monotonic()
        with pytest.raises(ModelFailed, match=r"killed after 0\.5 s, its time limit"):
            runner.read(_limited(tiny_model, seconds=0.5), _IMAGES)
        assert time.monotonic() - started < 60
        assert runner.process_id is None


def test_a_child_that_takes_too_much_memory_is_killed(tiny_model: RegisteredModel) -> None:
    """A read that passes the memory limit fails in words that name the limit."""
    with (
        ModelRunner(module=_CHILDREN + "eats_memory") as runner,
        pytest.raises(ModelFailed, match="ran out of its memory limit of 300 MB"),
    ):
        runner.read(_limited(tiny_model, megabytes=300), _IMAGES)


def test_a_crash_is_named_by_its_signal(tiny_model: RegisteredModel) -> None:
    """A child that dies of a signal makes the read fail with that signal's name."""
    with (
        ModelRunner(module=_CHILDREN + "crashes") as runner,
        pytest.raises(ModelFailed, match=r"crashed \(signal 11, SIGSEGV\)"),
    ):
        runner.read(tiny_model, _IMAGES)


def test_nonsense_is_a_failure(tiny_model: RegisteredModel) -> None:
    """An answer that is none fails the read; it never becomes a result."""
    with (
        ModelRunner(module=_CHILDREN + "talks_nonsense") as runner,
        pytest.raises(ModelFailed, match="cannot be understood"),
    ):
        runner.read(tiny_model, _IMAGES)


def test_a_child_that_cannot_start_is_a_failure(tiny_model: RegisteredModel) -> None:
    """A process that ends before it is ready fails the read with its exit status."""
    with (
        ModelRunner(module=_CHILDREN + "dies_at_birth") as runner,
        pytest.raises(ModelFailed, match=r"ended by itself \(exit status 3\)"),
    ):
        runner.read(tiny_model, _IMAGES)


def test_a_child_that_died_is_replaced(tiny_model: RegisteredModel) -> None:
    """After its process was killed from outside the runner reads again, with a new one."""
    with ModelRunner() as runner:
        first = runner.read(tiny_model, _IMAGES)
        pid = _child(runner)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        assert runner.read(tiny_model, _IMAGES) == first
        assert _child(runner) != pid


def test_unreadable_files_are_a_refusal(tiny_model: RegisteredModel, tmp_path: Path) -> None:
    """A study none of whose files can be decoded is refused in words, by the real child."""
    broken = tmp_path / "1.dcm"
    broken.write_bytes(b"not DICOM")
    with ModelRunner() as runner:
        answer = runner.read(tiny_model, [replace(_IMAGES[0], path=str(broken))])
    assert answer == Refused("no-readable-images", "Not read, because none of its images could be decoded.")


def test_a_study_without_images_is_a_refusal(tiny_model: RegisteredModel) -> None:
    """Nothing at all to read is a refusal of its own."""
    with ModelRunner() as runner:
        answer = runner.read(tiny_model, [])
    assert isinstance(answer, Refused)
    assert answer.code == "no-images"


def test_a_missing_model_is_a_failure_that_leaves_the_child_alive(tiny_model: RegisteredModel, tmp_path: Path) -> None:
    """What the child reports as an error fails that read alone; the same process answers the next."""
    with ModelRunner() as runner:
        runner.read(tiny_model, [])
        pid = _child(runner)
        with pytest.raises(ModelFailed, match=r"reported: contract\.toml cannot be read"):
            runner.read(replace(tiny_model, path=tmp_path), [])
        runner.read(tiny_model, [])
        assert _child(runner) == pid


def test_threads_take_turns(tiny_model: RegisteredModel) -> None:
    """Reads asked for by several threads at once are all answered, by one process."""
    answers = []
    with ModelRunner() as runner:
        threads = [threading.Thread(target=lambda: answers.append(runner.read(tiny_model, _IMAGES))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(answers) == 4
    assert len(set(answers)) == 1


def test_closing_ends_the_process(tiny_model: RegisteredModel) -> None:
    """No child outlives its runner."""
    runner = ModelRunner()
    runner.read(tiny_model, [])
    pid = _child(runner)
    runner.close()
    assert not _alive(pid)


def test_the_child_ends_when_its_worker_is_killed(tiny_root: Path) -> None:
    """A worker that is gone without a word leaves no child behind: its pipe is closed, and that ends the child."""
    program = (
        "import os, pathlib, sys\n"
        "from inference.registry import Registry\n"
        "from inference.runner import ModelRunner\n"
        "runner = ModelRunner()\n"
        "runner.read(Registry(pathlib.Path(sys.argv[1])).get('tiny'), [])\n"
        "print(f'child {runner.process_id}', flush=True)\n"
        "os._exit(0)\n"
    )
    root = Path(__file__).resolve().parents[3]
    worker = subprocess.run(
        [sys.executable, "-c", program, str(tiny_root)], cwd=root, capture_output=True, text=True, check=True
    )
    pid = int(worker.stdout.split("child ")[1].split()[0])
    deadline = time.monotonic() + 60
    while _running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(pid)


def test_the_child_never_loads_torch(tiny_model: RegisteredModel) -> None:
    """After a read the child has ONNX Runtime's library mapped, and torch's not."""
    with ModelRunner() as runner:
        runner.read(tiny_model, [])
        maps = Path(f"/proc/{_child(runner)}/maps")
        if not maps.exists():
            pytest.skip("SKIPPED LOUDLY: this system does not show what a process has mapped")
        mapped = maps.read_text(encoding="utf-8")
    assert "onnxruntime" in mapped
    assert "torch" not in mapped
