"""What the record says of an export after it was made: whom and what may not be trained on any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the record says now of an export: people and images that may not be trained on any more."""

    people: Mapping[str, str] = field(default_factory=dict)  # pseudonym → why
    images: Mapping[str, str] = field(default_factory=dict)  # name of the file, without folder and suffix → why
    asked: bool = False  # whether the record was asked at all

    def why(self, person: str, image: str) -> str:
        """Why an image may not be used; "" where it may."""
        return self.people.get(person) or self.images.get(image, "")
