"""What an environment demands before a batch may run (policy as data), and the words in which a door answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from bridge.settings import settings

Environment = Literal["local", "staging", "production"]
State = Literal["PASS", "HOLD", "N/A"]


@dataclass(frozen=True)
class Policy:
    """Which criteria of the go / no-go an environment demands; the others are shown, and hold nothing up.

    `stands`: how long writes (H) stand on a rung before the next. H-01 is of an hour; a local try need not wait for it.
    `ui_check`: how long a UI check (G-07) counts, of pages that nobody tells us the release of.
    """

    environment: Environment
    rehearsal: bool
    readiness: bool
    sign_offs: bool
    freeze_window: bool
    ladder: bool  # the flags of reads and writes are opened by their ladder alone, not by hand
    stands: timedelta = timedelta(hours=1)
    ui_check: timedelta = timedelta(days=7)


POLICIES: dict[Environment, Policy] = {
    policy.environment: policy
    for policy in (
        Policy(
            "local",
            rehearsal=False,
            readiness=False,
            sign_offs=False,
            freeze_window=False,
            ladder=False,
            stands=timedelta(seconds=10),
        ),
        Policy("staging", rehearsal=True, readiness=False, sign_offs=False, freeze_window=False, ladder=True),
        Policy("production", rehearsal=True, readiness=True, sign_offs=True, freeze_window=True, ladder=True),
    )
}


@dataclass(frozen=True)
class Criterion:
    """One line of a go / no-go: what is asked, what was found, what would change it.

    `demanded` is false where the policy only shows it. Only PASS and N/A let a batch through.
    """

    name: str  # short and stable: "gates of C", "rehearsal", "sign-off Tech Lead"
    state: State
    evidence: str  # what was found, with the ledger's entry where there is one
    todo: str  # what to do about a HOLD; empty on PASS
    paragraph: str  # of the blueprint or gates.md
    demanded: bool

    @property
    def holds(self) -> bool:
        return self.demanded and self.state == "HOLD"


def policy() -> Policy:
    """The policy in force: PHASE2_ENV; unset it is local on the embedded server and production on any other."""
    chosen = settings()
    return POLICIES[chosen.phase2_env or ("local" if chosen.is_embedded else "production")]
