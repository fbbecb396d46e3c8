"""A suite of checks of one plugin: what each found, and the next step where one fails.

In: checks, each a function. Out: a verdict per check, in order.
Read next: `policies.py` and `benches.py`, which hold the checks; `evalkit/cli/check.py`, which prints the verdicts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evalkit.contracts.errors import EpisodeFault, EvalkitError, describe

State = Literal["passed", "doubtful", "failed", "untried", "skipped"]
"""`untried`: the plugin makes the promise, and whether it keeps it is not known; `skipped`: there is nothing to try."""


class Doubt(Exception):
    """Something that no contract forbids and that is a mistake in most plugins, for example depth in millimetres."""


class NotApplicable(Exception):
    """The reason why a check does not apply to a plugin."""


class NotTried(Exception):
    """The reason why a promise that a plugin makes cannot be checked here."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: One or two words.
        run: Returns what it found; raises AssertionError, `EvalkitError` or `EpisodeFault` if a promise is not kept.
        advice: What to do if it fails, or is doubtful.
        needed: Whether nothing else can be checked if it fails.
        needs: Name of an earlier check without which this one says nothing, because it would fail with it.
    """

    name: str
    run: Callable[[], str]
    advice: str
    needed: bool = False
    needs: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check found, and the next step unless it passed."""

    name: str
    state: State
    found: str
    advice: str = ""


def judge(checks: Sequence[Check]) -> Iterator[Verdict]:
    """Yield a verdict per check; what needs one that failed is skipped, and after a needed one, everything is."""
    failed, missing = set[str](), ""
    for check in checks:
        lacking = missing or (check.needs if check.needs in failed else "")
        if lacking:
            yield Verdict(name=check.name, state="skipped", found=f"not checked: `{lacking}` failed")
            continue
        verdict = _verdict(check)
        yield verdict
        if verdict.state == "failed":
            failed.add(check.name)
            missing = check.name if check.needed else ""


def _verdict(check: Check) -> Verdict:
    state, found = _outcome(check)
    advice = check.advice if state in ("failed", "doubtful") else ""
    return Verdict(name=check.name, state=state, found=found, advice=advice)


def _outcome(check: Check) -> tuple[State, str]:
    try:
        return "passed", check.run()
    except Doubt as doubt:
        return "doubtful", str(doubt)
    except NotApplicable as reason:
        return "skipped", str(reason)
    except NotTried as reason:
        return "untried", str(reason)
    except (AssertionError, EvalkitError, EpisodeFault) as error:
        return "failed", " ".join(str(error).split())
    except Exception as error:  # a plugin is anyone's code
        return "failed", describe(error)


def require_all(checks: Sequence[Check]) -> None:
    """Raise what the first check raises whose promise is not kept; doubts and untried promises become warnings."""
    for check in checks:
        try:
            check.run()
        except Doubt as doubt:
            warnings.warn(f"{check.name}: {doubt} {check.advice}", stacklevel=3)
        except NotTried as reason:
            warnings.warn(f"{check.name} is not checked: {reason}", stacklevel=3)
        except NotApplicable:
            continue
