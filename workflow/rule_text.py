"""A rule's text cut into words, and into the conditions that "and", "or" and "not" join.

CEL's own library parses, checks and evaluates rules, but gives no tree to look at. To say *why* a rule holds, its text
is cut at the operators that join conditions; each piece is CEL again, and is given back to the library. Lexical rules
and the strength of operators: CEL language definition, "Syntax".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

_WORD = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
    |(?P<text>
        [bB]?[rR][bB]?(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\n]*"|'[^'\n]*')
        |[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    )
    |(?P<name>[A-Za-z_]\w*)
    |(?P<number>\d[\w.]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
# What binds less tightly than "!": with one of these behind it, "!" belongs to the first operand alone.
_LOOSER = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"})


class Joint(StrEnum):
    """How the parts of a condition are joined."""

    AND = "and"
    OR = "or"
    NOT = "not"
    NONE = ""  # it has no parts


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a rule."""

    kind: str  # text, name, number, sign
    text: str
    start: int  # place in the rule, characters from 0
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A condition: its text, and the conditions it is made of."""

    text: str
    joint: Joint
    parts: tuple[Piece, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Mention:
    """Something in a condition that has a value of its own."""

    name: str  # as people read it: `series.images`
    expression: str  # CEL that gives the value


def words(rule: str) -> tuple[Word, ...]:
    """The words of a rule, without spaces and comments."""
    return tuple(
        Word(match.lastgroup or "sign", match[0], match.start(), match.end())
        for match in _WORD.finditer(rule)
        if match.lastgroup != "space"
    )


def names(rule: str) -> frozenset[str]:
    """Every name in a rule: of what it sees, of attributes, of functions."""
    return frozenset(word.text for word in words(rule) if word.kind == "name")


def patterns(rule: str) -> Iterator[Word]:
    """The constant regular expressions that a rule matches with."""
    row = words(rule)
    for place in range(len(row) - 4):
        dot, name, opening, pattern, closing = row[place : place + 5]
        if (dot.text, name.text, opening.text, closing.text) == (".", "matches", "(", ")") and pattern.kind == "text":
            yield pattern


def pieces(rule: str) -> Piece:
    """The rule as conditions. A rule that does not parse is one condition."""
    return _piece(rule, words(rule))


def mentions(piece: Piece, roots: frozenset[str]) -> tuple[Mention, ...]:
    """What a condition speaks of, each once.

    Attributes by their own value. In `series.exists(s, s.images > 3)` and its like: the attribute of every entry.

    Args:
        piece: the condition.
        roots: names that begin an attribute: `study`, `series`, …
    """
    found: dict[str, Mention] = {}
    row, variables = piece.words, dict[str, str]()
    for place, word in enumerate(row):
        if word.kind != "name" or (place and row[place - 1].text == "."):
            continue
        chain, after = _chain(row, place)
        variable = variables.get(word.text)
        if variable is not None:
            attribute = chain.removeprefix(word.text)
            if attribute.startswith("."):
                mention = Mention(f"{variable}{attribute}", f"{variable}.map({word.text}, {chain})")
                found.setdefault(mention.name, mention)
        elif word.text in roots:
            bound = _bound(row, after)
            if bound is not None:
                variables[bound] = chain
            found.setdefault(chain, Mention(chain, chain))
    return tuple(found.values())


def _piece(rule: str, row: Sequence[Word]) -> Piece:
    row = _bare(row)
    text = rule[row[0].start : row[-1].end] if row else rule.strip()
    joint, parts = _cut(row)
    return Piece(text, joint, tuple(_piece(rule, part) for part in parts), tuple(row))


def _bare(row: Sequence[Word]) -> Sequence[Word]:
    """Without the brackets that are around all of it."""
    while len(row) > 2 and row[0].text == "(" and _closed_by(row) == len(row) - 1:
        row = row[1:-1]
    return row


def _closed_by(row: Sequence[Word]) -> int:
    """Where the bracket that opens the row is closed; -1: nowhere."""
    depth = 0
    for place, word in enumerate(row):
        if word.kind == "sign":
            depth += (word.text in _OPENING) - (word.text in _CLOSING)
            if depth == 0:
                return place
    return -1


def _cut(row: Sequence[Word]) -> tuple[Joint, list[Sequence[Word]]]:
    """The operands of the loosest operator outside of brackets, where that joins conditions."""
    outside = [place for place, depth in enumerate(_depths(row)) if depth == 0]
    signs = {row[place].text for place in outside if row[place].kind in ("sign", "name")}
    if "?" in signs:
        return Joint.NONE, []
    for sign, joint in (("||", Joint.OR), ("&&", Joint.AND)):
        if sign in signs:
            cuts = [place for place in outside if row[place].text == sign]
            bounds = [-1, *cuts, len(row)]
            parts = [row[start + 1 : end] for start, end in itertools.pairwise(bounds)]
            return (joint, parts) if all(parts) else (Joint.NONE, [])
    if row and row[0].text == "!" and len(row) > 1 and not signs & _LOOSER:
        return Joint.NOT, [row[1:]]
    return Joint.NONE, []


def _depths(row: Sequence[Word]) -> Iterator[int]:
    """How many brackets are open at each word, its own not counted when it opens or closes one."""
    depth = 0
    for word in row:
        if word.kind == "sign" and word.text in _CLOSING:
            depth -= 1
        yield depth if word.text not in _OPENING and word.text not in _CLOSING else depth + 1
        if word.kind == "sign" and word.text in _OPENING:
            depth += 1


def _chain(row: Sequence[Word], place: int) -> tuple[str, int]:
    """`series[0].Modality` as far as it goes without a call, and the place of the word behind it."""
    text, place = row[place].text, place + 1
    while place < len(row):
        if row[place].text == "." and place + 1 < len(row) and row[place + 1].kind == "name":
            if place + 2 < len(row) and row[place + 2].text == "(":
                break
            text, place = f"{text}.{row[place + 1].text}", place + 2
        elif row[place].text == "[" and place + 2 < len(row) and row[place + 2].text == "]":
            if row[place + 1].kind != "number":
                break
            text, place = f"{text}[{row[place + 1].text}]", place + 3
        else:
            break
    return text, place


def _bound(row: Sequence[Word], place: int) -> str | None:
    """The variable of the macro that follows: s of `.exists(s, …)`."""
    if place + 4 < len(row) and row[place].text == "." and row[place + 2].text == "(" and row[place + 4].text == ",":
        return row[place + 3].text if row[place + 3].kind == "name" else None
    return None
