"""Where a rule's fault stands in its file: TOML's reader tells no places, so the text is looked at here."""

from __future__ import annotations

import re
from pathlib import Path

from workflow.router import Place, Route
from workflow.rules import Fault

_TABLE = re.compile(r"^[ \t]*\[\[?[ \t]*(?P<name>[^\]]+?)[ \t]*\]?\][ \t]*(?:#.*)?$", re.MULTILINE)
_WHEN = re.compile(r"""^[ \t]*(?:when|"when"|'when')[ \t]*=[ \t]*(?P<quote>\"{3}|'{3}|"|')""", re.MULTILINE)


def place_in(source: Path | str) -> Place:
    """A function that says where a fault stands: "line 12, column 9 of wetread.toml".

    Args:
        source: the file, or the text of rules that stand in no file.
    """

    def place(route: Route, fault: Fault) -> str:
        if isinstance(source, Path):
            try:
                text, of = source.read_text(encoding="utf-8"), f" of {source}"
            except (OSError, UnicodeDecodeError):
                return ""
        else:
            text, of = source, " of the rules"
        found = _found(text, route, fault)
        return f"line {found[0]}, column {found[1]}{of}" if found else ""

    return place


def _found(text: str, route: Route, fault: Fault) -> tuple[int, int] | None:
    """Line and column in the file; None where the rule is not written there word for word."""
    start = _start(text, route)
    if start is None:
        return None
    before = route.when.split("\n")[: fault.line - 1]
    offset = start + sum(len(line) + 1 for line in before) + fault.column - 1
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _start(text: str, route: Route) -> int | None:
    """Where the rule's first character stands in the text."""
    tables = list(_TABLE.finditer(text))
    own = [place for place, table in enumerate(tables) if table["name"] == "route" and table[0].lstrip()[:2] == "[["]
    if not 0 < route.number <= len(own):
        return None
    place = own[route.number - 1]
    end = tables[place + 1].start() if place + 1 < len(tables) else len(text)
    key = _WHEN.search(text, tables[place].end(), end)
    if key is None:
        return None
    start = key.end()
    if len(key["quote"]) == 3 and text[start : start + 1] == "\n":  # TOML drops the first line break
        start += 1
    # With an escape in it the rule is not what stands in the file, and columns would be wrong.
    return start if text.startswith(route.when, start) else None
