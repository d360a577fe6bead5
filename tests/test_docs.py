"""What the documents say exists: commands, settings, exit codes, links, and each name in the table of rules."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer.main
import yaml

from bridge.batches import BATCHES, GLOBAL_GATES
from bridge.cli import app
from bridge.core_settings import CoreSettings
from bridge.settings import DBT_PROJECT, ROOT, Settings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), DBT_PROJECT / "models" / "overview.md"]
RULES = ROOT / "docs" / "mapping-rules.md"
ENVIRONMENT = ROOT / ".env.example"
TESTS = ROOT / "tests"

# The mapping page, paragraph by paragraph: each needs a row in the table of rules.
PARAGRAPHS = (
    *(
        f"1 {kind}"
        for kind in (
            "text", "multi-line text", "external ref", "slug", "name for matching", "currency", "money", "head counts",
            "source timestamps", "business dates", "e-mail", "phone, pickup, meeting point", "phone", "enum-like",
            "placeholders", "values that do not fit", "equal by normalisation", "review",
        )
    ),
    *(f"2 {rule}" for rule in ("keys", "identity", "ingestion", "corrected ref", "gone booking", "gone rows")),
    *(f"3.{number}" for number in range(1, 10)),
    *(f"4.{number}" for number in range(1, 14)),
    *(f"5.{number}" for number in range(1, 7)),
    *(f"6 {promise}" for promise in ("rerun", "killed", "sources", "rolled back")),
)  # fmt: skip


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_in(page: Path) -> str:
    """What a reader would type: fenced blocks and inline code."""
    text = text_of(page)
    blocks = re.findall(r"^```.*?^```", text, re.S | re.M)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))])


# --- commands and settings -----------------------------------------------------------------------------------------


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.M))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_make_target_exists(page: Path) -> None:
    asked = set(re.findall(r"(?:^|[\s;&`])make ([a-z-]+)", code_in(page)))
    assert asked <= targets()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_phase2_command_and_option_exists(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"^(?:\$ )?(?:eval \"\$\()?(?:\.venv/bin/)?phase2 ([a-z-].*)", code_in(page), re.M):
        words = re.split(r"\s*(?:[|;)#`]|&&)", line)[0].split()
        assert words[0] in {*commands, "--help"}, line
        command = commands.get(words[0])
        command = getattr(command, "commands", {}).get(words[1] if words[1:] else "", command)
        known = {option for p in command.params for option in p.opts} | {"--help"} if command else set()
        assert {word.split("=")[0] for word in words[1:] if word.startswith("-")} <= known, line


def test_each_variable_of_the_documents_is_a_setting() -> None:
    settings = {name.upper() for name in (*Settings.model_fields, *CoreSettings.model_fields)}
    profile = set(re.findall(r"env_var\('([A-Z0-9_]+)'", text_of(ROOT / "profiles.yml")))
    for page in [*PAGES, ENVIRONMENT]:
        named = set(re.findall(r"\b(?:PHASE2_[A-Z0-9_]+|[A-Z]+_DB_URL)\b", text_of(page)))
        assert named <= settings | profile, name_of(page)


def test_each_setting_is_documented() -> None:
    for name in (*Settings.model_fields, *CoreSettings.model_fields):
        assert re.search(rf"^# {name.upper()}=", text_of(ENVIRONMENT), re.M), name


def test_each_command_and_target_is_documented() -> None:
    pages = code_in(ROOT / "README.md") + code_in(ROOT / "docs" / "commands.md")
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"\b(phase2|make) {command}\b", pages), command
    for target in targets() - {"help"}:
        assert re.search(rf"\b(make|phase2) {target}\b", pages), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
        if not link.startswith(("http:", "https:", "#!")):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    """Paths in inline code, as far as they name a place of this repository."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M)
    for path in re.findall(r"`((?:bridge|flows|dbt_project|sql|tests|docs|\.ci|\.github)/[\w./-]*)`", prose):
        assert (ROOT / path).exists(), path


# --- the table of rules --------------------------------------------------------------------------------------------


@cache
def rows() -> list[list[str]]:
    """The table's rows: rule, in short, stands in, broken this fails, oracle's own case."""
    lines = [line for line in text_of(RULES).splitlines() if re.match(r"\| [1-6][ .]", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def dbt_names() -> dict[str, set[str]]:
    """Names in the dbt project, by kind."""
    tests = set()
    for file in (DBT_PROJECT / "models").rglob("*.yml"):
        tests |= {test["name"] for test in (yaml.safe_load(text_of(file)) or {}).get("unit_tests", [])}
    tests |= {file.stem for file in (DBT_PROJECT / "data-tests").glob("*.sql")}
    places = {file.stem for part in ("models", "functions", "macros") for file in (DBT_PROJECT / part).rglob("*.sql")}
    return {"tests": tests, "places": places | {file.stem for file in (DBT_PROJECT / "seeds").glob("*.csv")}}


@cache
def python_tests(file: str) -> set[str]:
    tree = ast.parse(text_of(TESTS / file))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@cache
def cases() -> set[str]:
    """Functions that have a table of cases."""
    tree = ast.parse(text_of(TESTS / "test_rulebook.py"))
    tables = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in ("CASES", "KEYS")
    ]
    return {
        key.value
        for table in tables
        if isinstance(table, ast.Dict)
        for key in table.keys
        if isinstance(key, ast.Constant)
    }


def fails(name: str) -> bool:
    """Whether there is a test of that name."""
    gates = {*GLOBAL_GATES, *(gate for batch in BATCHES.values() for gate in batch.gates)}
    if name.startswith("cases:"):
        return name.removeprefix("cases:") in cases()
    if name.startswith("gate "):
        return name.removeprefix("gate ") in gates
    if "::" in name:
        file, test = name.split("::")
        return (TESTS / file).is_file() and test in python_tests(file)
    return name in dbt_names()["tests"]


def test_every_paragraph_of_the_mapping_has_a_row() -> None:
    assert {row[0] for row in rows()} == set(PARAGRAPHS)
    assert all(len(row) == 5 for row in rows())


def test_every_place_in_the_table_of_rules_exists() -> None:
    for rule, _, places, _, _ in rows():
        assert named(places), rule
        for place in named(places):
            exists = any((base / place).is_file() for base in (ROOT, DBT_PROJECT)) if "/" in place else None
            assert exists or place in dbt_names()["places"], (rule, place)


def test_every_test_in_the_table_of_rules_exists() -> None:
    for rule, _, _, tests, own in rows():
        assert named(tests), rule
        for test in named(tests):
            assert fails(test), (rule, test)
        for test in named(own):
            assert test in python_tests("test_oracle.py"), (rule, test)


def test_every_unit_test_and_invariant_is_in_the_table_of_rules() -> None:
    """The other way round: a new test of a rule gets its place in the table."""
    listed = {test for row in rows() for test in named(row[3])}
    assert dbt_names()["tests"] - listed == set()


def test_every_function_of_the_rulebook_is_in_the_table_of_rules() -> None:
    functions = {
        node["name"] for node in yaml.safe_load(text_of(DBT_PROJECT / "functions" / "_functions.yml"))["functions"]
    }
    assert functions - {place for row in rows() for place in named(row[2])} == set()
