"""A TOML table of a contract that knows its own name, so that its errors can say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from fhir_records.errors import BundleError
from inference.answers import Concept


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its place. Every method raises BundleError that names the key, its value and what is allowed."""

    values: Mapping[str, Any]
    path: str

    def at(self, key: str) -> str:
        """The key with its tables before it."""
        return f"{self.path}.{key}" if self.path else key

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            fail(self.at(key), value, "a text that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, which may be empty."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            fail(self.at(key), value, "a list of texts (it may be empty)")
        return tuple(value)

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """One of these texts."""
        value = self.text(key)
        if value not in allowed:
            fail(self.at(key), value, " or ".join(repr(item) for item in allowed))
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A number within these bounds, both included."""
        value = self.values.get(key)
        if not _is_number(value, low, high):
            fail(self.at(key), value, f"a number from {low} to {high}")
        return float(value)

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """So many numbers within these bounds."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) != count or not all(_is_number(one, low, high) for one in value):
            fail(self.at(key), value, f"{count} numbers from {low:g} to {high:g}")
        return tuple(float(one) for one in value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false; `default` where the key is not there."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            fail(self.at(key), value, "true or false")
        return value

    def concept(self, key: str) -> Concept:
        """A code: scheme, value and meaning."""
        table = self.table(key)
        return Concept(table.text("scheme"), table.text("value"), table.text("meaning"))

    def table(self, key: str) -> Table:
        """The table in this one."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            fail(self.at(key), value, "a table")
        return Table(value, self.at(key))

    def tables(self, key: str, optional: bool = False) -> tuple[Table, ...]:
        """The list of tables in this one."""
        value = self.values.get(key, [] if optional else None)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            fail(self.at(key), value, "a list of tables")
        return tuple(Table(item, f"{self.at(key)}[{number}]") for number, item in enumerate(value))


def _is_number(value: object, low: float, high: float) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def fail(key: str, value: object, allowed: str) -> NoReturn:
    """Say what is wrong with the contract. Raises BundleError."""
    raise BundleError(f"contract.toml: {key} is {value!r}; allowed is {allowed}.")
