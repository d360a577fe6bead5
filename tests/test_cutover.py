"""The whole cutover as docs/cutover.md has it, line by line: real doors, a real service, by the command line alone."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bridge.settings import ROOT
from bridge.ui_gate import BROWSERS

PHASE2 = ROOT / ".venv" / "bin" / "phase2"
PAGE = ROOT / "docs" / "cutover.md"
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    for line in block.splitlines()
]
SECONDS = 300  # of one line


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A folder of its own, filled, with the service up; the environment of a shell that takes part."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = {"PHASE2_HOME": str(tmp_path / "home"), "PHASE2_REPORTS": str(tmp_path / "reports")}
    environment = os.environ | ours | {"CORE_API_PORT": str(port), "PATH": f"{PHASE2.parent}:{os.environ['PATH']}"}
    run(environment, "phase2 demo --bookings 150")
    with (tmp_path / "serve.log").open("wb") as log:
        service = subprocess.Popen([PHASE2, "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert service.poll() is None, (tmp_path / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        told = subprocess.run([PHASE2, "env"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        yield environment | dict(re.findall(r"^export (\w+)='?(.*?)'?$", told.stdout, re.M))
    finally:
        service.terminate()
        service.wait(30)
        run(environment, "phase2 down")


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/db", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def run(environment: dict[str, str], line: str) -> str:
    """A line of the page, by a shell; its exit code is 0, or what a comment at its end says."""
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    print(f"{time.monotonic() - began:6.1f} s  {line}")
    expected = int(m[1]) if (m := re.search(r"# (\d)$", line)) else 0
    assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium: gate G-07 needs a UI check")
def test_the_page_takes_reads_and_writes_over_and_back(shell: dict[str, str]) -> None:
    said: dict[str, str] = {}
    for line in LINES:
        if line.startswith("phase2 rollout H --go"):
            time.sleep(10)
        said[line] = run(shell, line)
        if line == "phase2 run --from H --to H":
            assert "at the top: 100 %" in run(shell, "phase2 rollout G")
    (up,) = (words for line, words in said.items() if line.startswith("phase2 rollout H --go"))
    assert "from note, meeting_point: testers to note, meeting_point: 5 %" in up
    status = said["phase2 status"]
    assert [line.split()[0] for line in status.splitlines() if "ROLLED_BACK" in line] == ["F", "G", "H"], status


def test_the_page_names_every_rung_of_the_reads() -> None:
    assert sum(line.startswith("phase2 rollout G --go") for line in LINES) == 4
