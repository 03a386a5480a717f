"""As much of Markdown as the tests of the documentation need: sections, tables, code blocks, links."""

from __future__ import annotations

import re
from pathlib import Path

_HEADING = re.compile(r"(#{1,6}) (.+)")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def without_code(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks in ``language``."""
    return [match[3] for match in _FENCE.finditer(text) if match[2] == language]


def headings(text: str) -> list[str]:
    """The headings, in order."""
    return [match[2] for line in without_code(text).splitlines() if (match := _HEADING.fullmatch(line))]


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level.

    Raises:
        KeyError: there is no such heading.
    """
    found: list[str] | None = None
    for line in without_code(text).splitlines():
        if match := _HEADING.fullmatch(line):
            if found is not None:
                break
            if match[2] == heading:
                found = []
        elif found is not None:
            found.append(line)
    if found is None:
        raise KeyError(heading)
    return "\n".join(found)


def tables(text: str) -> list[list[list[str]]]:
    """Every table: its rows of cells, the heading row first."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|").strip())]
        if not inside:
            found.append([])
            inside = True
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found[-1].append(cells)
    return found


def table(text: str, first: str) -> list[list[str]]:
    """The rows, without the heading row, of the table whose first column is called ``first``.

    Raises:
        KeyError: there is no such table.
    """
    for rows in tables(text):
        if rows[0][0] == first:
            return rows[1:]
    raise KeyError(first)


def plain(cell: str) -> str:
    """A cell's text without the backticks."""
    return cell.replace("`", "")


def links(text: str) -> list[str]:
    """Where the links and pictures lead."""
    return [match[1] or match[2] for match in _LINK.finditer(without_code(text))]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on the usual hosts."""
    made = set()
    for heading in headings(path.read_text(encoding="utf-8")):
        words = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        made.add(words.replace(" ", "-"))
    return made
