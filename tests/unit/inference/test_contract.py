"""contract.toml: complete, or refused with the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fhir_records.errors import BundleError
from inference.contract import load_contract, parse_contract
from inference.registry import SHIPPED
from tests.unit.inference.samples import contract_document


def test_the_shipped_contract_answers_no_tumour_as_neoplasm_absent() -> None:
    """The shipped model says "no tumour" as the code for neoplasm with the presence absent, and in words with "no"."""
    shipped = load_contract(SHIPPED / "brain_mr_tumour" / "contract.toml")
    (absent,) = [item for item in shipped.classes if item.presence == "absent"]
    assert (absent.code.scheme, absent.code.value) == ("SCT", "108369006")
    assert absent.wording.lower().startswith("no ")
    assert shipped.question.code == absent.code


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("name",), "Brain MR", "lower-case"),
        (("version",), "", "a text that is not empty"),
        (("calibration", "temperature"), 0, "a number from 0.05"),
        (("calibration", "temperature"), True, "a number"),
        (("limits", "memory_limit_mb"), "much", "a number"),
        (("required", "modality"), "MR", "a list of texts"),
        (("question", "code"), {"scheme": "SCT", "value": "1"}, "question.code.meaning"),
        (("classes", 0, "presence"), "maybe", "'present' or 'absent'"),
        (("classes", 2, "presence"), "present", "exactly one class"),
        (("classes", 1, "label"), "glioma", "labels that differ"),
        (("expected", 0, "attribute"), "weather", "'contrast_agent'"),
        (("familiarity",), {"usual": 2.0, "limit": 1.0}, "familiarity.limit"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(path: tuple[Any, ...], value: object, words: str) -> None:
    """A contract with one wrong value is refused in a sentence that names its key and what may stand there."""
    document = contract_document()
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BundleError) as caught:
        parse_contract(document)
    assert words in str(caught.value)
    assert str(path[0]) in str(caught.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    """A contract that cannot be parsed is the bundle's error, not a parser's."""
    (tmp_path / "contract.toml").write_text("name = [", encoding="utf-8")
    with pytest.raises(BundleError, match=r"contract\.toml cannot be read"):
        load_contract(tmp_path / "contract.toml")
