"""Versions of a model changed under a running Wetread."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import select

from deploy.phantom import phantom_study
from fhir_records import tables
from fhir_records.model import ReadState
from inference.registry import SHIPPED, Registry
from tests.peers import storescu
from tests.service import Service, running, until

NAME = "brain_mr_tumour"


def _send(service: Service, folder: Path, seed: int) -> None:
    folder.mkdir()
    files = []
    for number, ds in enumerate(phantom_study(seed=seed)):
        files.append(folder / f"{number}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    assert storescu(files, "127.0.0.1", service.dicom_port, called="WETREAD", calling="CT1").status == 0


def _versions(service: Service, trial: str) -> tuple[list[str], list[str]]:
    """The versions that studies were read by, and that one was tried beside."""
    with service.database() as database, database.session() as session:
        done = tables.Read.state.in_([ReadState.READ, ReadState.REFUSED])
        reads = session.scalars(
            select(tables.Read.model_version).where(done, tables.Read.model == NAME).order_by(tables.Read.id)
        )
        trials = session.scalars(select(tables.ShadowRead.version).where(tables.ShadowRead.version == trial))
        return list(reads), list(trials)


def test_a_trial_and_an_activation_need_no_restart(home: Path, tmp_path: Path) -> None:
    """A version put on trial reads the next study beside the active one; activated, it reads the one after that."""
    newer = Path(shutil.copytree(SHIPPED / NAME, tmp_path / "newer"))
    contract = newer / "contract.toml"
    registry = Registry(home / "models")
    first = registry.get(NAME).version
    text = contract.read_text(encoding="utf-8")
    contract.write_text(text.replace(f'version = "{first}"', 'version = "99.0"'), encoding="utf-8")
    with running(home) as service:
        registry.add(newer, activate=False)
        registry.shadow(NAME, "99.0")
        _send(service, tmp_path / "one", 1)
        until(lambda: _versions(service, "99.0") == ([first], ["99.0"]), what="a read and a trial")
        registry.activate(NAME, "99.0")
        _send(service, tmp_path / "two", 2)
        until(lambda: _versions(service, "99.0") == ([first, "99.0"], ["99.0"]), what="a read by the new version")
