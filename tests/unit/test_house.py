"""The house rules: who may import whom, and that every test says what it shows."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("fhir_records", "dicom_listener", "inference", "workflow", "web", "deploy")

# For each contract a line, and a file, in which it may not stand.
BREACHES = [
    ("house", "fhir_records/audit.py", "import dicom_listener.pixels"),
    ("web-asks", "web/settings.py", "import inference.contract"),
    ("no-torch-below", "dicom_listener/pixels.py", "import torch"),
    ("protected-models", "workflow/delivery.py", "import onnxruntime"),
    ("protected-network", "fhir_records/audit.py", "import pynetdicom"),
    ("protected-objects", "web/settings.py", "import highdicom"),
    ("protected-http", "workflow/delivery.py", "import fastapi"),
    ("protected-server", "web/settings.py", "import uvicorn"),
    ("protected-jobs", "workflow/delivery.py", "import procrastinate"),
]


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--contract", contract],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages' Python files, to be broken."""
    folder = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        for file in (REPOSITORY / package).rglob("*.py"):
            if "node_modules" not in file.parts:
                target = folder / file.relative_to(REPOSITORY)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    shutil.copyfile(REPOSITORY / "pyproject.toml", folder / "pyproject.toml")
    return folder


@pytest.mark.parametrize(("contract", "file", "line"), BREACHES, ids=[breach[0] for breach in BREACHES])
def test_each_import_contract_holds_and_can_break(copy: Path, contract: str, file: str, line: str) -> None:
    """A contract passes on the code as it is, and fails when one import that it forbids is added."""
    kept = lint(copy, contract)
    assert kept.returncode == 0, kept.stdout
    path = copy / file
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(f"{text}\n{line}\n", encoding="utf-8")
        broken = lint(copy, contract)
    finally:
        path.write_text(text, encoding="utf-8")
    assert broken.returncode != 0
    assert "BROKEN" in broken.stdout


def test_every_contract_is_tried() -> None:
    """No import contract is left out of the trial above."""
    import tomllib

    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == {breach[0] for breach in BREACHES}


def test_every_test_says_in_a_sentence_what_it_shows() -> None:
    """Each test function has a docstring of one sentence."""
    silent = []
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                words = ast.get_docstring(node) or ""
                if not words.split("\n\n")[0].rstrip().endswith("."):
                    silent.append(f"{file.relative_to(REPOSITORY)}: {node.name}")
    assert silent == []


def test_broad_excepts_say_why() -> None:
    """An `except` for everything raises again, or stands at a boundary and says which."""
    bare = []
    for package in PACKAGES:
        for file in (REPOSITORY / package).rglob("*.py"):
            if "node_modules" in file.parts:
                continue
            text = file.read_text(encoding="utf-8")
            lines = text.splitlines()
            for node in ast.walk(ast.parse(text)):
                if not isinstance(node, ast.ExceptHandler):
                    continue
                broad = node.type is None or (
                    isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
                )
                last = node.body[-1]
                again = isinstance(last, ast.Raise) and last.exc is None
                if broad and not again and "# boundary:" not in lines[node.lineno - 1]:
                    bare.append(f"{file.relative_to(REPOSITORY)}:{node.lineno}")
    assert bare == []


def test_the_long_test_files_are_there() -> None:
    """Each file that is begun first is one of the test files, and named once."""
    assert len(set(LONGEST)) == len(LONGEST)
    assert [name for name in LONGEST if not (REPOSITORY / "tests" / name).is_file()] == []
