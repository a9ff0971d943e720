"""What --help shows: every field of a recipe, in groups, and no defaults that only Python knows."""

from __future__ import annotations

import pytest

from resnetlab.cli import train
from resnetlab.cli.main import main
from resnetlab.training.recipe import FIELDS


def test_the_options_of_train_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f" {title} ") for title in train._GROUPS.values()]
    assert places == sorted(places)
    assert shown.index("--momentum") > places[list(train._GROUPS).index("optimiser")]
    assert shown.index("--lr ") < shown.index("--momentum") < shown.index("--precision")


def test_each_group_begins_at_a_field() -> None:
    assert set(train._GROUPS) <= set(FIELDS)
    assert next(iter(train._GROUPS)) == FIELDS[0], "a field before the first group would have none"
    assert [f for f in FIELDS if f in train._GROUPS] == list(train._GROUPS)


@pytest.mark.parametrize("command", ["predict", "explain", "features", "train", "study run", "data pack", "serve"])
def test_defaults_are_shown_as_users_write_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "()" not in shown
    assert "None]" not in shown
