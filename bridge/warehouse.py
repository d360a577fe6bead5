"""dbt, in this process, against the ops database.

One `dbtRunner` at a time (it is not thread-safe); dbt runs its own threads inside. Importing dbt takes seconds, so
it is imported only when a step needs it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bridge import postgres
from bridge.errors import CouldNotRun, plain
from bridge.settings import DBT_PROJECT, ROOT, settings

# dbt's sessions, whatever the server's defaults: UTC, no search path to fall into, no time lost in JIT compilation,
# and a statement whose client was killed ends within seconds instead of finishing on its own.
_SESSION = "-c timezone=UTC -c jit=off -c client_connection_check_interval=1000"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Node:
    """One dbt node that ran. `seconds` is its own; `rows` is what it wrote, where dbt knows."""

    unique_id: str
    kind: str
    name: str
    status: str
    seconds: float
    rows: int | None
    failures: int | None
    message: str
    checksum: str
    selector_path: str


@dataclass(frozen=True)
class Range:
    """Keys from `start` to before `end`, "" for no end; `again`: their rows may be there already, below other keys."""

    start: str
    end: str
    again: bool


def build(
    ops_url: str,
    selector: str,
    *,
    progress: Progress | None = None,
    breathe: Callable[[], None] | None = None,
    extra: list[str] | None = None,
    follows: bool = False,
    between: Range | None = None,
) -> list[Node]:
    """Run `dbt build --selector <selector>` (unit tests belong to development, not to a run).

    `breathe` is called before each node, from dbt's threads; what it raises ends the build.
    `follows`: models compute only the bookings in phase2.touched_bookings (bridge/follow.py).
    `between`: bridge models write only these keys (bridge/ranges.py).

    Returns the nodes in the order in which they ended. Raises CouldNotRun when a node errors, or when a test of a
    model fails: a gate's test that fails is told apart by its name (`gate_…`) and is left to the verdict, which reads
    the same rows.
    """
    # buildable: a test runs in the batch that makes all that it looks at, not in every batch that shares a function
    scope = ["--exclude-resource-type", "unit_test", "--indirect-selection", "buildable"]
    told: dict[str, Any] = {"follows": True} if follows else {}
    told |= {f"range_{name}": value for name, value in asdict(between).items()} if between else {}
    scope += ["--vars", json.dumps(told)] if told else []
    nodes = invoke(
        ops_url, ["build", "--selector", selector, *scope, *(extra or [])], progress=progress, breathe=breathe
    )
    broken = [
        n
        for n in nodes
        if n.status in ("error", "runtime error") or (n.status == "fail" and not n.name.startswith("gate_"))
    ]
    if broken:
        worst = broken[0]
        raise CouldNotRun(
            f"dbt {worst.kind} {worst.name}: {plain(worst.message)}"
            + (f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""),
            where=worst.selector_path,
            todo="A failed test names rows that break an invariant; the log of dbt has its compiled SQL.",
        )
    return nodes


def invoke(
    ops_url: str,
    arguments: list[str],
    *,
    progress: Progress | None = None,
    breathe: Callable[[], None] | None = None,
) -> list[Node]:
    """Any dbt command; its nodes as they ended. Raises CouldNotRun when dbt itself could not work."""
    raised: list[Exception] = []
    callbacks: list[Callable[[Any], None]] = [_reporter(progress)] if progress else []
    callbacks += [_breather(breathe, raised)] if breathe else []
    with _ONE, _environment(ops_url):
        result = _invoke(ops_url, arguments, _manifest(ops_url, digest()), callbacks)
    if raised:
        raise raised[0]
    return [_node(node) for node in getattr(result, "results", None) or []]


@dataclass(frozen=True)
class Found:
    """A node of the project by its name: its relation as (schema, name), and the column that its grain is tested by."""

    unique_id: str
    relation: tuple[str, str] | None
    key: str | None


def find(ops_url: str, name: str) -> Found | None:
    """The model, seed or function of that name; None when there is none."""
    with _ONE, _environment(ops_url):
        manifest = _manifest(ops_url, digest())
    for node in manifest.functions.values():
        if node.name == name:
            return Found(node.unique_id, None, None)
    node = next((n for n in manifest.nodes.values() if n.name == name and n.resource_type in ("model", "seed")), None)
    if node is None:
        return None
    unique = (
        test.column_name
        for test in manifest.nodes.values()
        if getattr(test, "attached_node", None) == node.unique_id and test.test_metadata.name == "unique"
    )
    if str(node.config.materialized) == "bridge":
        schema, table = node.config.get("into_schema", "public"), node.config.get("table", node.name)
        return Found(node.unique_id, (schema, table), node.config.get("key"))
    return Found(node.unique_id, (node.schema, node.name), next(unique, None))


def project(ops_url: str) -> list[dict[str, Any]]:
    """Every node as dbt parsed it, by its id, without what differs by machine or time: the manifest in short."""
    with _ONE, _environment(ops_url):
        manifest = _manifest(ops_url, digest())
    parts = (manifest.functions, manifest.nodes, manifest.sources, manifest.unit_tests)
    return [
        {
            "unique_id": node.unique_id,
            "kind": str(node.resource_type),
            "file": node.original_file_path,
            "relation": f"{node.schema}.{node.identifier}" if hasattr(node, "identifier") else None,
            "sha256": _checksum(node),
            "depends_on": sorted(getattr(getattr(node, "depends_on", None), "nodes", [])),
        }
        for node in sorted((n for part in parts for n in part.values()), key=lambda n: n.unique_id)
    ]


def warm(ops_url: str) -> None:
    """Import dbt and have it read the project beside what the caller does next: two seconds of a first invocation."""

    def read() -> None:
        with _ONE, suppress(Exception):  # who builds meets it again, and tells it
            _manifest(ops_url, digest())

    _tell(ops_url)  # here: what else this process starts reads the environment meanwhile
    threading.Thread(target=read, name="dbt", daemon=True).start()


# dbt works for one caller at a time.
_ONE = threading.RLock()


@lru_cache(maxsize=2)
def _manifest(ops_url: str, project: str) -> Any:
    """The project as dbt parsed it, kept while this process works on one version of it and one database."""
    manifest = _invoke(ops_url, ["parse"])
    gc.freeze()  # it stays: looking for garbage in it again and again takes a quarter of a small build
    return manifest


def _invoke(
    ops_url: str, arguments: list[str], manifest: Any = None, callbacks: list[Callable[[Any], None]] | None = None
) -> Any:
    from dbt.cli.main import dbtRunner

    # dbt's partial parse is bound to the profile: one target folder a database keeps it warm
    place = settings().phase2_home / "dbt" / hashlib.sha256(ops_url.encode()).hexdigest()[:12]
    outcome = dbtRunner(manifest=manifest, callbacks=list(callbacks or [])).invoke(
        [
            *arguments,
            *("--project-dir", str(DBT_PROJECT)),
            *("--profiles-dir", str(ROOT)),
            *("--target-path", str(place)),
            *("--log-path", str(place / "logs")),
            *("--log-level", "none", "--log-level-file", "info"),
            "--no-write-json",  # the manifest as JSON takes longer than a small build
        ]
    )
    logging.getLogger().handlers[:] = [h for h in logging.getLogger().handlers if not _is_dbt_handler(h)]
    if outcome.exception is not None:
        raise CouldNotRun(
            f"dbt {arguments[0]}: {plain(outcome.exception)}",
            where=str(DBT_PROJECT.name),
            todo=f"See {place / 'logs' / 'dbt.log'}.",
        )
    return outcome.result


@contextmanager
def _environment(ops_url: str) -> Iterator[None]:
    """What profiles.yml and dbt's connections read."""
    _tell(ops_url)
    os.environ["PGOPTIONS"] = _SESSION
    try:
        yield
    finally:
        os.environ.pop("PGOPTIONS")  # dbt's alone: libpq would give it to every connection of ours


def _tell(ops_url: str) -> None:
    """What profiles.yml reads."""
    os.environ.update(postgres.dbt_environment(ops_url))
    os.environ["PHASE2_DBT_THREADS"] = str(settings().phase2_dbt_threads)
    os.environ["DO_NOT_TRACK"] = "1"


def digest() -> str:
    """SHA-256 over the dbt project's sources: models, functions, macros, seeds, tests and selectors."""
    total = hashlib.sha256()
    for path in sorted(DBT_PROJECT.rglob("*")):
        relative = path.relative_to(DBT_PROJECT)
        if path.is_file() and relative.parts[0] not in ("target", "logs", "dbt_packages"):
            total.update(str(relative).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def _node(result: Any) -> Node:
    node = result.node
    rows = (result.adapter_response or {}).get("rows_affected")
    return Node(
        unique_id=node.unique_id,
        kind=str(node.resource_type),
        name=node.name,
        status=str(result.status),
        seconds=round(float(result.execution_time or 0.0), 3),
        rows=int(rows) if isinstance(rows, int) and rows >= 0 else None,
        failures=result.failures,
        message=str(result.message or ""),
        checksum=_checksum(node),
        selector_path=str(Path("dbt_project") / node.original_file_path),
    )


def _checksum(node: Any) -> str:
    """SHA-256 of a node's file; empty where dbt keeps none (tests, sources)."""
    return getattr(getattr(node, "checksum", None), "checksum", "") or ""


def _reporter(progress: Progress) -> Callable[[Any], None]:
    def report(event: Any) -> None:
        if event.info.name in ("LogModelResult", "LogSeedResult"):
            data = event.data
            progress(f"  {data.index:>3}/{data.total} {data.node_info.node_name}: {data.status}")

    return report


def _breather(breathe: Callable[[], None], raised: list[Exception]) -> Callable[[Any], None]:
    """Breath before each node. An error makes the node one that failed, and dbt skips what is below it."""

    def before(event: Any) -> None:
        if event.info.name != "LogStartLine":
            return
        if not raised:
            try:
                breathe()
            except Exception as error:
                raised.append(error)
        if raised:
            raise raised[0]

    return before


def _is_dbt_handler(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("dbt")
