"""What was found so far, a line for each source, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conformance_matrix.checkers import Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One object, and what was found in it."""

    group: str
    source: str
    kind: str
    state: str  # of the result; a rejection note's says what it takes back
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Ledger:
    """The file, and of it what is about the states that are asked for."""

    path: Path | None  # None: nothing is kept

    def found(self) -> dict[tuple[str, str, tuple[str, ...]], list[Judged]]:
        """By group, name and states of a source; a last line that was cut off counts as not written."""
        return dict(self._entries())

    def add(self, group: str, source: str, states: tuple[str, ...], found: list[Judged]) -> None:
        """One source is done."""
        if self.path is None:
            return
        objects = [{"kind": one.kind, "state": one.state, "verdict": asdict(one.verdict)} for one in found]
        line = json.dumps({"group": group, "source": source, "states": states, "objects": objects})
        # Begun with the line feed: what follows a line that was cut off stands on a line of its own.
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}")

    def _entries(self) -> Iterator[tuple[tuple[str, str, tuple[str, ...]], list[Judged]]]:
        if self.path is None or not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                told = json.loads(line)
            except json.JSONDecodeError:
                continue
            group, source = told["group"], told["source"]
            yield (
                (group, source, tuple(told["states"])),
                [Judged(group, source, one["kind"], one["state"], _verdict(one["verdict"])) for one in told["objects"]],
            )


def _verdict(told: dict[str, list[str]]) -> Verdict:
    return Verdict(**{name: tuple(words) for name, words in told.items()})
