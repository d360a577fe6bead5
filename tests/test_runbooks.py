"""The runbooks are those of the plan and the rules as they are; tests/test_docs.py holds their commands and links."""

from __future__ import annotations

import re

import pytest
import typer.main
import yaml

from bridge import runbooks
from bridge.batches import BATCHES
from bridge.cli import app
from bridge.settings import ROOT

PAGES = runbooks.pages()


def test_the_pages_are_what_make_runbooks_makes() -> None:
    assert {file.name for file in runbooks.FOLDER.iterdir()} == PAGES.keys()
    for name, text in PAGES.items():
        assert (runbooks.FOLDER / name).read_text("utf-8") == text, f"{name}: make runbooks"


def test_there_is_one_for_each_alert_and_each_batch() -> None:
    words = yaml.safe_load((ROOT / "observability" / "runbooks.yml").read_text("utf-8"))
    assert PAGES.keys() == {f"{name}.md" for name in words} | {f"batch-{code}.md" for code in BATCHES} | {"README.md"}


def wrong(text: str) -> list[str]:
    """Commands in a page that the command line has not, or not with these options."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = []
    for line in re.findall(r"`phase2 ([^`]+)`", text):
        words = re.sub(r'"[^"]*"', "x", line).split()
        command = commands.get(words[0])
        command = getattr(command, "commands", {}).get(words[1] if words[1:] else "", command)
        known = {option for p in command.params for option in p.opts} if command else set()
        if not command or {word for word in words if word.startswith("-")} - known:
            found.append(line)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_command_exists(name: str) -> None:
    assert wrong(PAGES[name]) == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert wrong("`phase2 resume --why x`, `phase2 mend`, `phase2 status`") == ["resume --why x", "mend"]
