"""The runbooks are those of the plan and the rules as they are; tests/test_docs.py holds their commands and links."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer.main
import yaml

from bridge import runbooks
from bridge.batches import BATCHES
from bridge.cli import app
from bridge.errors import CouldNotRun
from bridge.flags import FLAGS
from bridge.settings import ROOT
from core_api.__main__ import PARTS
from core_api.app import create_app
from tests.test_docs import PAGES as DOCUMENTS
from tests.test_docs import code_in

PAGES = runbooks.pages()
UsageError = typer.BadParameter.__base__  # typer has its own click


def test_the_pages_are_what_make_runbooks_makes() -> None:
    assert {file.name for file in runbooks.FOLDER.iterdir()} == PAGES.keys()
    for name, text in PAGES.items():
        assert (runbooks.FOLDER / name).read_text("utf-8") == text, f"{name}: make runbooks"


def test_there_is_one_for_each_alert_and_each_batch() -> None:
    words = yaml.safe_load((ROOT / "observability" / "runbooks.yml").read_text("utf-8"))
    assert PAGES.keys() == {f"{name}.md" for name in words} | {f"batch-{code}.md" for code in BATCHES} | {"README.md"}


def test_a_line_that_yaml_reads_as_a_mapping_is_refused() -> None:
    words = yaml.safe_load("{means: x, look: [look there], do: [nobody has booked: try to book]}")
    with pytest.raises(CouldNotRun, match="nobody has booked"):
        runbooks._alert("QueueAway", {"labels": {"severity": "critical"}, "expr": "up"}, words)
    assert not [name for name, text in PAGES.items() if "{{" in text or "{'" in text]


def wrong(text: str) -> list[str]:
    """What a page has in inline code to be typed, and cannot be: a command that does not exist or does not take these
    arguments, a module, a file, a target or its variable, a route."""
    lines = [line for line in re.findall(r"`([^`\n]+)`", text) if line.split()[0] in KINDS]
    return [line for line in lines if not KINDS[line.split()[0]](shlex.split(line.replace("ID", str(UUID(int=0)))))]


def _phase2(words: list[str]) -> bool:
    """Parsed as the command line does, and each flag is one; nothing is run."""
    command: Any = typer.main.get_command(app)
    name, rest = words[0], words[1:]
    try:
        while hasattr(command, "resolve_command"):
            name, command, rest = command.resolve_command(command.make_context(name, rest or ["x"]), rest)
        command.make_context(name, rest)
    except (UsageError, typer.Exit):
        return False
    return {word for word in words if word.endswith("_ENABLED")} <= {*FLAGS}


def _python(words: list[str]) -> bool:
    module = words[2] if words[1] == "-m" else ""
    folder = ROOT / module.replace(".", "/")
    known = folder.with_suffix(".py").is_file() or (folder / "__main__.py").is_file()
    return known and (module != "core_api" or (len(words) == 4 and words[3] in PARTS))


def _psql(words: list[str]) -> bool:
    files = [words[n + 1] for n, word in enumerate(words) if word == "-f"]
    return all((ROOT / file).is_file() for file in files)


def _make(words: list[str]) -> bool:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    variables = [word.split("=")[0] for word in words[2:]]
    return bool(re.search(rf"^{words[1]}:", makefile, re.M)) and all(f"$({name})" in makefile for name in variables)


def _route(words: list[str]) -> bool:
    return words[0].lower() in _paths().get(words[1], {})


@cache
def _paths() -> dict[str, Any]:
    return create_app(ops_url="postgresql://nowhere/x").openapi()["paths"]


KINDS = {
    "phase2": _phase2,
    "python": _python,
    "psql": _psql,
    "make": _make,
    "GET": _route,
    "POST": _route,
    # not to be typed as they stand: each is `python -m …`, or `phase2 …`
    **dict.fromkeys(("core_api", "bridge", "flows"), lambda words: False),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_command_exists(name: str) -> None:
    assert wrong(PAGES[name]) == []


def test_a_command_that_does_not_exist_is_found() -> None:
    good = (
        "phase2 status",
        'phase2 conflicts told ID --reason "who"',
        "python -m core_api worker",
        'psql "$OPS_DB_URL" -f sql/phase2/rollback/A.sql',
        "make recon BATCH=F",
        "GET /health/db",
    )
    bad = (
        "phase2 resume --why x",
        "phase2 mend",
        "phase2 flag OPS_READ_ENABLED off",
        "core_api worker",
        "python -m core_api wroker",
        "python -m core_api worker --now",
        "python -m core_apy worker",
        'psql "$OPS_DB_URL" -f sql/phase2/rollback/Z.sql',
        "make racon BATCH=F",
        "make recon BITCH=F",
        "GET /healthy",
    )
    assert wrong(" ".join(f"`{line}`" for line in (*good, *bad))) == list(bad)


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if page.parent != runbooks.FOLDER], ids=lambda page: page.name
)
def test_modules_and_scripts_of_the_other_documents_exist(page: Path) -> None:
    """tests/test_docs.py holds their commands of ours."""
    found = re.findall(
        r"\b(python -m (?:core_api|bridge|flows|tests)[^`\n|#&)]*|psql [^`\n]* -f [^`\n|#&]*)", code_in(page)
    )
    assert wrong(" ".join(f"`{line}`" for line in found)) == []
