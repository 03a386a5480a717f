"""Routing rules in CEL (https://cel.dev): compiled and type-checked at start, evaluated, and explained.

CEL is a language of expressions without side effects or loops, so a rule can do no harm and ends. What it sees is
declared as messages (`workflow.facts`), so that the library's checker finds every wrong name and type before the first
patient comes.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from workflow.facts import LISTS, SEEN, Facts, Kind
from workflow.rule_text import Joint, Mention, Piece, mentions, names, patterns, pieces

_PACKAGE = "rule"
_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {Kind.TEXT: _FIELD.TYPE_STRING, Kind.NUMBER: _FIELD.TYPE_INT64, Kind.TEXTS: _FIELD.TYPE_STRING}
_FAULT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
# How the library's checker says what our messages say better.
_NO_FIELD = re.compile(r"undefined field '(\w+)' not found in struct '\w+\.(\w+)'")
_NO_NAME = re.compile(r"undeclared reference to '([\w.]+)'")
_NO_FIT = re.compile(r"found no matching overload for '([^']+)' applied to '(.*)'")
_TYPE_WORDS = {"int": "a whole number", "string": "a text", "bool": "true or false", "double": "a number with decimals"}
_LONGEST_VALUE = 160  # characters of a value in an explanation
_MOST_ENTRIES = 8  # of a list in an explanation


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a rule, and where in it."""

    line: int  # from 1
    column: int  # from 1, in characters
    words: str


class RuleFaults(Exception):
    """A rule does not parse or type-check."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.words for fault in self.faults))


class RuleBroken(Exception):
    """A rule could not be evaluated for one study, such as an index beyond a list."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A value that a condition looked at."""

    name: str  # `study.Modality`
    value: str  # as CEL writes it, shortened


@dataclass(frozen=True, slots=True)
class Condition:
    """A rule, or a part of one, and what it came to for one study."""

    text: str
    holds: bool | None  # None: it could not be evaluated
    joint: Joint
    parts: tuple[Condition, ...]
    reasons: tuple[Reason, ...]  # of a condition without parts
    decided: bool = True  # whether the whole would not be what it is without this part

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the record and for programs."""
        return {
            "text": self.text,
            "holds": self.holds,
            "decided": self.decided,
            "joint": self.joint.value,
            "parts": [part.to_json() for part in self.parts],
            "reasons": [{"name": reason.name, "value": reason.value} for reason in self.reasons],
        }


class Rule:
    """A compiled rule.

    Args:
        text: CEL that comes to true or false.

    Raises:
        RuleFaults: it does not parse or type-check, with every place that is wrong.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._expression = _compiled(text)
        if self._expression.return_type() != cel.Type.BOOL:
            came_to = _types(self._expression.return_type().name().lower())
            raise RuleFaults([Fault(1, 1, f"comes to {came_to}, and must come to true or false")])
        _check_patterns(text)

    def asks_for(self, name: str) -> bool:
        """Whether the rule speaks of this."""
        return name in names(self.text)

    def holds(self, seen: Seen) -> bool:
        """Whether the rule is true of a study.

        Raises:
            RuleBroken: it cannot be said.
        """
        return _truth(self._expression, seen)

    def explain(self, seen: Seen) -> Condition:
        """What the rule came to, down to the values that it looked at."""
        return _mark(_explained(pieces(self.text), seen, frozenset(SEEN)), decided=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """The facts of one study as the library takes them; made once for all rules."""

    activation: Any

    @classmethod
    def of(cls, facts: Facts) -> Seen:
        """Facts as `workflow.facts.facts_of` makes them; what is left out is empty."""
        messages = _messages()
        data: dict[str, Any] = {}
        for name in SEEN:
            value = facts.get(name, [] if name in LISTS else {})
            make = functools.partial(_message, messages[name], name)
            data[name] = [make(entry) for entry in value] if name in LISTS else make(value)
        return cls(_environment().Activation(data))


def _message(kind: Any, name: str, values: Mapping[str, Any]) -> Any:
    return kind(**{key: value for key, value in values.items() if key in SEEN[name]})


# --- the language -------------------------------------------------------------------------------------------------


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="rule.proto", package=_PACKAGE, syntax="proto3")
    for name, attributes in SEEN.items():
        message = file.message_type.add(name=name)
        for number, (attribute, kind) in enumerate(attributes.items(), start=1):
            label = _FIELD.LABEL_REPEATED if kind is Kind.TEXTS else _FIELD.LABEL_OPTIONAL
            message.field.add(name=attribute, number=number, type=_TYPES[kind], label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


@functools.cache
def _messages() -> Mapping[str, Any]:
    pool = _pool()
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in SEEN}


@functools.cache
def _environment() -> Any:
    types = {name: cel.Type(f"{_PACKAGE}.{name}") for name in SEEN}
    variables = {name: cel.Type.List(kind) if name in LISTS else kind for name, kind in types.items()}
    return cel.NewEnv(_pool(), variables=variables)


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> Any:
    """The checked expression; the pieces of the rules in use are met with every study."""
    try:
        return _environment().compile(text)
    except RuntimeError as error:  # the library's one word for every fault
        raise RuleFaults(_faults(str(error), text)) from error


def _check_patterns(text: str) -> None:
    """Regular expressions are compiled only when a rule is evaluated; here they are tried before."""
    faults = []
    for pattern in patterns(text):
        value = _compiled(f'"".matches({pattern.text})').eval()
        if value.type() == cel.Type.ERROR:
            line = text.count("\n", 0, pattern.start) + 1
            column = pattern.start - (text.rfind("\n", 0, pattern.start) + 1) + 1
            why = str(value.value()).partition("invalid regular expression: ")[2] or "RE2 does not take it"
            faults.append(Fault(line, column, f"the regular expression is not valid: {why}"))
    if faults:
        raise RuleFaults(faults)


def _faults(said: str, text: str) -> list[Fault]:
    found = [
        _fault(int(line), int(column), words, text)
        for line, column, words in _FAULT.findall(said)
        if "*error*" not in words  # what follows from a fault that is told already
    ]
    if found:
        return found
    if "recursion limit" in said:
        return [Fault(1, 1, "is nested too deeply")]
    return [Fault(1, 1, f"is no CEL: {said.partition(': ')[2] or text}")]


def _fault(line: int, column: int, said: str, text: str) -> Fault:
    """The checker's message in terms of what a rule sees, with the place where the name that it is about begins."""
    said = said.removesuffix(" [INVALID_ARGUMENT]")
    written = text.split("\n")[line - 1]
    if found := _NO_FIELD.search(said):
        name, owner = found[1], found[2]
        words = f"{_owner_words(owner)} has no {name}{_meant(name, SEEN[owner])}; it has {', '.join(SEEN[owner])}"
        return Fault(line, max(written.find(name, column - 1), column - 1) + 1, words)
    if found := _NO_NAME.search(said):
        name = found[1].partition(".")[0]
        # The checker names the place behind the name: of the dot, or of the bracket.
        start = written.rfind(name, 0, column + len(name) - 1)
        if written[column - 1 : column] == "(":
            words = f"{name} is no function of CEL"
        else:
            words = f"{name} is not known{_meant(name, SEEN)}; a rule sees {', '.join(SEEN)}"
        return Fault(line, start + 1 if start >= 0 else column, words)
    return Fault(line, column, _words(said))


def _words(said: str) -> str:
    if found := _NO_FIT.search(said):
        sign = found[1].strip("_").replace("_", " ").removeprefix("@").strip() or found[1]
        return f"{sign} does not go with {_types(found[2])}"
    if said.startswith("Syntax error: "):
        return f"is no CEL: {said.removeprefix('Syntax error: ').partition(' expecting ')[0]}"
    return said


def _owner_words(owner: str) -> str:
    return f"an entry of {owner}" if owner in LISTS else owner


def _meant(name: str, known: Iterable[str]) -> str:
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (is {by_lower[close[0]]} meant?)" if close else ""


def _types(said: str) -> str:
    """`(int, string)` of the checker in words."""
    inner = said.removeprefix("(").removesuffix(")")
    told = []
    for name in re.split(r", (?![^(]*\))", inner):
        plain = name.strip().removeprefix(f"{_PACKAGE}.")
        if plain.startswith("list("):
            told.append("a list")
        else:
            told.append(_TYPE_WORDS.get(plain, plain))
    return " and ".join(told)


# --- what a rule comes to -----------------------------------------------------------------------------------------


def _truth(expression: Any, seen: Seen) -> bool:
    return bool(_value(expression, seen).value())


def _value(expression: Any, seen: Seen) -> Any:
    """What an expression comes to.

    Raises:
        RuleBroken: the library gives an error, or gave up: a rule may look at 10,000 entries of lists.
    """
    try:
        value = expression.eval(seen.activation)
    except RuntimeError as error:
        raise RuleBroken(str(error)) from error
    if value.type() == cel.Type.ERROR:
        raise RuleBroken(str(value.value()))
    return value


def _explained(piece: Piece, seen: Seen, roots: frozenset[str]) -> Condition:
    try:
        parts = tuple(_explained(part, seen, roots) for part in piece.parts)
        holds: bool | None = _truth(_compiled(piece.text), seen)
    except RuleBroken:
        holds = None
    except RuleFaults:  # a piece that is no condition by itself: the whole is shown uncut
        parts, holds = (), None
    reasons = tuple(_reasons(mentions(piece, roots), seen)) if not parts else ()
    return Condition(piece.text, holds, piece.joint if parts else Joint.NONE, parts, reasons)


def _mark(condition: Condition, *, decided: bool) -> Condition:
    """Say of each part whether it decided: of "and" what is false, of "or" what is true, or else all of them."""
    decisive = {Joint.AND: False, Joint.OR: True}.get(condition.joint)
    some = decisive is not None and condition.holds is decisive
    return Condition(
        condition.text,
        condition.holds,
        condition.joint,
        tuple(_mark(part, decided=decided and (not some or part.holds is decisive)) for part in condition.parts),
        condition.reasons,
        decided,
    )


def _reasons(found: Iterable[Mention], seen: Seen) -> Iterable[Reason]:
    for mention in found:
        try:
            value = _value(_compiled(mention.expression), seen)
        except (RuleFaults, RuleBroken):
            continue  # such as the variable of an inner macro, or an index beyond a list
        yield Reason(mention.name, _said(value.plain_value(), mention.name))


def _said(value: Any, name: str) -> str:
    if isinstance(value, list):
        if value and not isinstance(value[0], str | int | bool | list):
            return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
        different = list(dict.fromkeys(json.dumps(entry, ensure_ascii=False) for entry in value))
        more = ", …" if len(different) > _MOST_ENTRIES else ""
        return f"[{', '.join(different[:_MOST_ENTRIES])}{more}]"
    if not isinstance(value, str | int | bool):
        return name  # a whole study or series says nothing in short
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= _LONGEST_VALUE else f"{said[:_LONGEST_VALUE]}…"
