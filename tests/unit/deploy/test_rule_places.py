"""A rule's fault has its line and column in the configuration file, however the rule is written there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from deploy.rule_places import place_in
from workflow.router import Route
from workflow.rules import Fault, Rule, RuleFaults

BEFORE = '[site]\ntimezone = "UTC"\n\n[[route]]\nname = "first"\nwhen = "true"\nmodels = ["a"]\n\n'


def placed(table: str, number: int = 2) -> str:
    """Where the first fault of the rule in this table stands, the table being the second route of a file."""
    text = BEFORE + table
    when = tomllib.loads(text)["route"][number - 1]["when"]
    with pytest.raises(RuleFaults) as raised:
        Rule(when)
    return place_in(text)(Route("x", when, (), (), number=number), raised.value.faults[0])


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("[[route]]\nwhen = 'study.imges == 1'\n", "line 10, column 15 of the rules"),
        ('[[ route ]] # two\nname = "x"\n  when="study.imges == 1"\n', "line 11, column 15 of the rules"),
        ("[[route]]\nwhen = '''study.imges == 1'''\n", "line 10, column 17 of the rules"),
        ("[[route]]\nwhen = '''\ntrue &&\n  study.imges == 1'''\n", "line 12, column 9 of the rules"),
        ('[[route]]\n"when" = """\\\n  study.imges == 1"""\n', ""),  # a folded line: columns would be wrong
        ('[[route]]\nwhen = "study.Modality == \\"MR\\" && study.imges == 1"\n', ""),  # escapes, likewise
        ("[[route]]\nname = 'when = 1'\nwhen = 'study.imges == 1' # [[route]]\n", "line 11, column 15 of the rules"),
    ],
)
def test_the_place_is_the_one_in_the_file(table: str, place: str) -> None:
    """Literal and basic texts, of one line or several; where the file says it in another way, no place is made up."""
    assert placed(table) == place


def test_the_file_is_named(tmp_path: Path) -> None:
    """With rules from a file the place names it; a file that is gone names none."""
    path = tmp_path / "wetread.toml"
    path.write_text("[[route]]\nwhen = 'nobody'\n")
    route = Route("x", "nobody", (), (), number=1)
    assert place_in(path)(route, Fault(1, 1, "")) == f"line 2, column 9 of {path}"
    path.unlink()
    assert place_in(path)(route, Fault(1, 1, "")) == ""


def test_a_route_of_no_file_has_no_place() -> None:
    """The default routes stand in no file."""
    assert place_in(BEFORE)(Route("by default", "nobody", (), ()), Fault(1, 1, "")) == ""
