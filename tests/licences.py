"""The licences of everything that a default install brings: ``python -m tests.licences``. GPL and AGPL are refused."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

# The General Public Licence and the Affero one, but not the Lesser.
REFUSED = re.compile(r"(?<!L)(?<!Lesser )\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)


def licence_of(found: Distribution) -> str:
    """What a distribution says of its licence: the expression, else the classifiers, else the old field."""
    meta = found.metadata
    classifiers = [entry.split("::")[-1].strip() for entry in meta.get_all("Classifier") or [] if "License ::" in entry]
    old_field = str(meta.get("License") or "").strip()
    return meta.get("License-Expression") or "; ".join(classifiers) or old_field.partition("\n")[0] or "unknown"


def closure(name: str) -> dict[str, str]:
    """Every distribution that ``name`` needs without extras, with its licence."""
    licences: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        current, extras = waiting.pop()
        if (current, extras) in seen:
            continue
        seen.add((current, extras))
        try:
            found = distribution(current)
        except PackageNotFoundError:
            continue  # for another platform
        licences[found.name] = licence_of(found)
        for text in found.requires or []:
            requirement = Requirement(text)
            wanted = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(env) for env in wanted):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return dict(sorted(licences.items(), key=lambda entry: entry[0].lower()))


def main() -> int:
    """Print the report; 1 where a licence is refused."""
    licences = closure("wetread")
    refused = {name: text for name, text in licences.items() if REFUSED.search(text)}
    for name, text in licences.items():
        print(f"{'REFUSED ' if name in refused else ''}{name}: {text}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
