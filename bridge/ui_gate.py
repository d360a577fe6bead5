"""The UI release gate (G-07; blueprint 8.1): pictures of configured pages against approved ones, pixel by pixel.

Pages, sizes and masks are a file (PHASE2_UI_PAGES). A baseline counts when the ledger holds its digest, by a person who
gave a reason; a page without one, or with another picture at its place, has drifted. Every check is kept for the gate,
and counts for the release that it was made of: these pages, baselines and code, and not for ever (`confirm`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import psycopg
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge import gates, ledger, runlog
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.policy import policy
from bridge.reports.write import ui as write_page
from bridge.settings import ROOT, settings

State = Literal["SAME", "DRIFT", "NEW", "ANOTHER_SIZE"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 30.0  # the longest that a page may take
PROOF_SECONDS = 10.0  # and, once it is there, what shows that somebody is signed in
KEPT = timedelta(days=90)  # pictures of a check
_NAME = "%Y-%m-%dT%H-%M-%S-%fZ"  # of its folder


class Page(BaseModel):
    """One page: a path below the base, or a whole URL. What `masks` (CSS) names moves, and is not compared."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    url: str
    masks: tuple[str, ...] = ()
    full: bool = Field(True, description="the whole page, not only what the window shows")
    signed_in: bool = True


class SignIn(BaseModel):
    """What is filled in (CSS: text, or `$NAME` of the environment) and pressed before pages are pictured. `proof` (CSS)
    is on every page for who is signed in, and for nobody else: a form that asks again is no picture of the page."""

    model_config = ConfigDict(extra="forbid")

    url: str
    fill: dict[str, str]
    press: str
    proof: str


class Pages(BaseModel):
    """The file. `base`: where paths are; none: the core API. `tolerance`: the share of the pixels that may differ."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(default_factory=lambda: core_settings().url)
    sign_in: SignIn | None = None
    tolerance: float = Field(0.0001, ge=0, le=1)
    sizes: dict[str, tuple[int, int]]
    pages: tuple[Page, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Compared:
    """One page in one size. Pictures are below the folder of the check; `share` of the pixels differ."""

    item: str
    url: str
    state: State
    share: float
    pixels: int
    candidate: str
    digest: str
    baseline: str | None = None
    difference: str | None = None


@dataclass(frozen=True)
class Check:
    """All of them. `report` is the page with the pictures side by side."""

    folder: Path
    report: Path
    compared: tuple[Compared, ...] = field(default=())

    @property
    def drifted(self) -> tuple[Compared, ...]:
        return tuple(one for one in self.compared if one.state != "SAME")


def read(file: Path | None = None) -> Pages:
    """The configured pages. CouldNotRun: no such file, or what of it cannot be."""
    path = file or settings().phase2_ui_pages
    try:
        return Pages.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError:
        raise CouldNotRun("there is no file of pages", where=str(path), todo="Set PHASE2_UI_PAGES.") from None
    except (yaml.YAMLError, ValidationError) as error:
        raise CouldNotRun(f"the file of pages cannot be read: {error}", where=str(path)) from None


def check(conn: psycopg.Connection, pages: Pages) -> Check:
    """Take every picture, compare it with its baseline, write the report, keep the result for gate G-07."""
    run_id = runlog.uuid7()
    folder = _home() / "checks" / runlog.utc_now().strftime(_NAME)
    folder.mkdir(parents=True)
    approved = baselines(conn)
    compared = []
    for item, url, picture in _pictures(pages):
        (folder / f"{item}.png").write_bytes(picture)
        compared.append(_compare(folder, item, url, approved.get(item), pages.tolerance))
    (folder / "result.json").write_text(json.dumps([asdict(one) for one in compared], indent=2), encoding="utf-8")
    made = Check(folder, write_page(compared, folder), tuple(compared))
    with conn.transaction():
        gates.record_inputs(
            conn,
            run_id,
            "G-07",
            [
                (one.item, one.state == "SAME", {"state": one.state, "share": one.share, "sha256": one.digest})
                for one in compared
            ],
        )
        body = {
            "result": "FAIL" if made.drifted else "PASS",
            "drifted": [one.item for one in made.drifted],
            "bound_to": bound_to(conn, pages),
            "files": ledger.files(made.report, folder / "result.json"),
        }
        ledger.append(conn, "ui", run_id=run_id, body=body)
    return made


def bound_to(conn: psycopg.Connection, pages: Pages) -> dict[str, str]:
    """The digests of what a check is of: the file of pages, their approved baselines, the code of the core API."""
    approved = baselines(conn)
    ours = {
        item: approved.get(item) for page in pages.pages for size in pages.sizes for item in [f"{page.name}-{size}"]
    }
    files = (
        path for path in sorted((ROOT / "core_api").rglob("*")) if path.is_file() and "__pycache__" not in path.parts
    )
    code = [(str(path.relative_to(ROOT)), _digest(path)) for path in files]
    said = {
        "pages": pages.model_dump_json(exclude_unset=True),
        "baselines": json.dumps(ours, sort_keys=True),
        "code": json.dumps(code),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in said.items()}


def confirm(conn: psycopg.Connection) -> str:
    """Say to gate G-07 whether the latest check is of this release; why it is not, else empty."""
    checked = ledger.latest(conn, "ui")
    try:
        pages = read()
    except CouldNotRun as error:
        checked, why = None, error.what
    else:
        why = "there is no check"
    if checked:
        now, then = bound_to(conn, pages), checked.body.get("bound_to") or {}
        others = [name for name, digest in now.items() if then.get(name) != digest]
        old = runlog.utc_now() - checked.at > policy().ui_check
        why = f"the latest check is of other {', '.join(others)}" if others else ""
        why = why or (f"the latest check is of {checked.at:%Y-%m-%d %H:%M} UTC" if old else "")
    run_id = checked.run_id if checked and checked.run_id else runlog.uuid7()
    gates.record_inputs(conn, run_id, "G-07", [("of this release", not why, {"why": why} if why else None)])
    return why


def approve(conn: psycopg.Connection, reason: str, items: tuple[str, ...] = ()) -> tuple[Compared, ...]:
    """Make the pictures of the latest check baselines: those that drifted, or the named ones of them.

    CouldNotRun: no reason, no check, nothing of that name, or a picture that is not the one that was checked.
    """
    if not reason.strip():
        raise CouldNotRun("a reason is missing", todo='Say why: --reason "…"')
    checks = sorted((_home() / "checks").glob("*/result.json"))
    if not checks:
        raise CouldNotRun("nothing was checked yet", where=str(_home()), todo="phase2 ui check")
    latest = checks[-1].parent
    found = [Compared(**one) for one in json.loads(checks[-1].read_text("utf-8"))]
    drifted = {one.item: one for one in found if one.state != "SAME"}
    if unknown := sorted(set(items) - drifted.keys()):
        raise CouldNotRun(f"not drifted in the latest check: {', '.join(unknown)}", where=str(latest))
    chosen = tuple(one for one in drifted.values() if not items or one.item in items)
    if not chosen:
        raise CouldNotRun("nothing has drifted: there is nothing to approve", where=str(latest))
    for one in chosen:
        if _digest(latest / one.candidate) != one.digest:
            raise CouldNotRun(f"the picture of {one.item} is not the one that was checked", where=str(latest))
    (_home() / "baselines").mkdir(parents=True, exist_ok=True)
    with conn.transaction():
        for one in chosen:
            shutil.copyfile(latest / one.candidate, _baseline(one.item))
            ledger.append(conn, "ui-approval", subject=one.item, body={"sha256": one.digest, "reason": reason})
    return chosen


def baselines(conn: psycopg.Connection) -> Mapping[str, str]:
    """The digest of each approved picture, by page and size: the last word of the ledger."""
    return {entry.subject or "": entry.body["sha256"] for entry in ledger.entries(conn, "ui-approval")}


def forget() -> int:
    """Remove the pictures of checks older than KEPT, but the latest one's; how many. What they found stays: the ledger
    holds its digests."""
    checks = sorted((_home() / "checks").glob("*/"))
    latest = max((check.name for check in checks if (check / "result.json").is_file()), default="")
    oldest = min((runlog.utc_now() - KEPT).strftime(_NAME), latest)
    old = [picture for check in checks if check.name < oldest for picture in check.glob("*.png")]
    for picture in old:
        picture.unlink()
    return len(old)


def _home() -> Path:
    return settings().phase2_reports / "ui"


def _baseline(item: str) -> Path:
    return _home() / "baselines" / f"{item}.png"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _compare(folder: Path, item: str, url: str, approved: str | None, tolerance: float) -> Compared:
    from PIL import Image, ImageChops
    from pixelmatch.contrib.PIL import pixelmatch

    candidate, kept = folder / f"{item}.png", _baseline(item)
    digest, made = _digest(candidate), Image.open(candidate).convert("RGB")
    if approved is None or _digest(kept) != approved:
        return Compared(item, url, "NEW", 1.0, made.width * made.height, candidate.name, digest)
    old = Image.open(kept).convert("RGB")
    shutil.copyfile(kept, folder / f"{item}.baseline.png")
    seen = {"candidate": candidate.name, "digest": digest, "baseline": f"{item}.baseline.png"}
    if old.size != made.size:
        return Compared(item, url, "ANOTHER_SIZE", 1.0, made.width * made.height, **seen)
    box = ImageChops.difference(old, made).getbbox()
    if box is None:
        return Compared(item, url, "SAME", 0.0, 0, **seen)
    # the comparison is slow, and beyond this box there is nothing to find; smoothed edges are no difference
    part = Image.new("RGBA", (box[2] - box[0], box[3] - box[1]))
    pixels = pixelmatch(old.crop(box), made.crop(box), part)
    drawn = Image.blend(made, Image.new("RGB", made.size, "white"), 0.8)
    drawn.paste(part.convert("RGB"), box[:2])
    drawn.save(folder / f"{item}.difference.png")
    share = pixels / (made.width * made.height)
    state: State = "DRIFT" if share > tolerance else "SAME"
    return Compared(item, url, state, share, pixels, **seen, difference=f"{item}.difference.png")


def _pictures(pages: Pages) -> Iterator[tuple[str, str, bytes]]:
    """Of each page and size: its name, its URL, and the picture (PNG), nothing moving."""
    as_it_is = {"reduced_motion": "reduce", "color_scheme": "light", "locale": "en-GB", "timezone_id": "UTC"}
    with _browser() as browser:
        for size, (width, height) in pages.sizes.items():
            stranger = browser.new_context(viewport={"width": width, "height": height}, **as_it_is)
            guest = browser.new_context(viewport={"width": width, "height": height}, **as_it_is)
            if pages.sign_in:
                _sign_in(guest, pages.sign_in, _url(pages, pages.sign_in.url))
            for page in pages.pages:
                url = _url(pages, page.url)
                proof = pages.sign_in.proof if pages.sign_in and page.signed_in else None
                yield f"{page.name}-{size}", url, _picture(guest if page.signed_in else stranger, page, url, proof)


def _url(pages: Pages, url: str) -> str:
    return url if "://" in url else pages.base.rstrip("/") + url


def _sign_in(context: Any, form: SignIn, url: str) -> None:
    from playwright.sync_api import Error

    tab = context.new_page()
    try:
        tab.goto(url, timeout=SECONDS * 1000)
        for field_, text in form.fill.items():
            value = os.environ.get(text[1:]) if text.startswith("$") else text
            if not value:
                raise CouldNotRun(f"{text[1:]} is not set: nobody can sign in", where="environment")
            tab.fill(field_, value)
        tab.click(form.press)
        tab.wait_for_selector(form.proof, state="attached", timeout=PROOF_SECONDS * 1000)
    except Error as error:
        raise CouldNotRun(f"cannot sign in: {error.message.splitlines()[0]}", where=url) from None
    finally:
        tab.close()


def _picture(context: Any, page: Page, url: str, proof: str | None) -> bytes:
    from playwright.sync_api import Error

    tab = context.new_page()
    try:
        answered = tab.goto(url, wait_until="load", timeout=SECONDS * 1000)
        if answered is None or not answered.ok:
            status = answered.status if answered else "nothing"
            raise CouldNotRun(f"{page.name} answers {status}", where=url, todo="A page that fails is no picture of it.")
        if proof:
            tab.wait_for_selector(proof, state="attached", timeout=PROOF_SECONDS * 1000)
        masks = [tab.locator(mask) for mask in page.masks]
        return tab.screenshot(full_page=page.full, animations="disabled", caret="hide", mask=masks)
    except Error as error:
        raise CouldNotRun(f"{page.name} cannot be pictured: {error.message.splitlines()[0]}", where=url) from None
    finally:
        tab.close()


@contextmanager
def _browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise CouldNotRun("playwright is not installed", todo='pip install "phase2-bridge[ui]"') from None
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise CouldNotRun("there is no Chromium here", todo="apt-get install chromium")
    with sync_playwright() as playwright:
        # the same letters on every machine that has the same fonts
        options = ["--no-sandbox", "--font-render-hinting=none", "--disable-lcd-text", "--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()
