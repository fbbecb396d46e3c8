"""Every error that a user or a plugin can cause.

In: what went wrong. Out: one sentence that says what was expected, what arrived and from where, what to do.
Read next: `spec.py`, which raises most of them.
"""

from __future__ import annotations

import difflib
import errno
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

Blame = Literal["env", "policy", "harness"]


class EvalkitError(Exception):
    """A mistake that the user can correct; the message is one helpful sentence and is shown without a traceback."""


class UnknownName(EvalkitError):
    """A bench, task, setting, protocol, policy or key that does not exist.

    Example:
        >>> print(UnknownName("task", "Lft", ["Lift", "Door"], see="evalkit list --bench robosuite"))
        Unknown task 'Lft'. Did you mean 'Lift'? Run `evalkit list --bench robosuite`.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, see: str) -> None:
        names = sorted(set(known))
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(names) or 'none'}."
        super().__init__(f"Unknown {kind} '{name}'. {hint} Run `{see}`.")


class BadConfig(EvalkitError):
    """A flag or override that cannot be used."""


class PluginRaised(EvalkitError):
    """An error of a plugin's own code; `__cause__` holds it with its traceback."""


class SpecMismatch(EvalkitError):
    """An env and a policy that do not fit each other; the message names what both give and need."""


class RunFolderError(EvalkitError):
    """A run folder that cannot be written, or that holds another plan."""


class MissingAssets(EvalkitError):
    """An asset that a scene needs and that is not installed; an env that raises it makes the episode end as `skipped`.

    Example:
        >>> print(MissingAssets("assets/objects/048_stapler", advice="Run `python script/_download_assets.py`."))
        assets/objects/048_stapler is missing. Run `python script/_download_assets.py`.
    """

    def __init__(self, file: str | Path, *, advice: str = "") -> None:
        super().__init__(f"{file} is missing. {advice}".rstrip())


class EpisodeFault(Exception):
    """Something that ends one episode as `error`; the run goes on.

    Attributes:
        blame: Which side caused it.
        reason: One sentence, kept in the episode's record.
        retriable: True where the cause may lie outside the episode (a worker that died or hung), so that the
            episode is tried again within the run's limit; False where trying again gives the same fault.
        counts: False where another episode is the cause (it made the policy's process hang or die), so that the
            attempt does not count against the run's limit.
    """

    def __init__(self, blame: Blame, reason: str, *, retriable: bool = False, counts: bool = True) -> None:
        super().__init__(reason)
        self.blame: Blame = blame
        self.reason = reason
        self.retriable = retriable
        self.counts = counts

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make a copy in another process, whatever the arguments of the class are; without the cause."""
        return _copy_of, (type(self), self.args, vars(self))


def _copy_of(kind: type[EpisodeFault], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> EpisodeFault:
    fault = kind.__new__(kind, *arguments)
    fault.args = arguments
    vars(fault).update(attributes)
    return fault


class WorkerNotStarted(EpisodeFault):
    """A worker that ended with an exit code before it had an env; retriable, unless no worker has had one yet.

    Attributes:
        advice: What tells what is missing.
    """

    def __init__(self, reason: str, *, advice: str) -> None:
        super().__init__("env", reason, retriable=True)
        self.advice = advice


class SolvedAtReset(EpisodeFault):
    """An episode whose goal is met before the first step; its seed drew such a scene, and the next may be fine."""


class EnvRaised(EpisodeFault):
    """An error that an env raised; its process still answers.

    Attributes:
        env_id: The env.
        kind: Name of the error's type, for example `FloatingPointError`.
        text: Text of the error.
        said: Both, or the text alone where it is a sentence for users: an `EvalkitError`, which this machine causes.

    Example:
        >>> print(EnvRaised("robosuite/Lift", kind="ValueError", text="no such state"))
        robosuite/Lift: ValueError: no such state
    """

    def __init__(self, env_id: str, *, kind: str, text: str) -> None:
        self.env_id = env_id
        self.kind = kind
        self.text = text
        self.said = text if self.is_machines else f"{kind}: {text}"
        super().__init__("env", f"{env_id}: {self.said}")

    @property
    def is_machines(self) -> bool:
        """Return whether this machine lacks something, so that every episode would end like this one."""
        return self.misses_assets or self.kind == EvalkitError.__name__

    @property
    def misses_assets(self) -> bool:
        """Return whether the env raised `MissingAssets`, so that the episode is skipped."""
        return self.kind == MissingAssets.__name__


class EnvNotBuilt(EvalkitError):
    """An env that cannot be built.

    Attributes:
        fault: What the env raised.
    """

    def __init__(self, message: str, *, fault: EnvRaised) -> None:
        super().__init__(message)
        self.fault = fault


def describe(error: BaseException) -> str:
    """Return what a plugin's error says: its type, its message, and the file and line of the plugin.

    Example:
        >>> describe(KeyError("foo"))
        "KeyError: 'foo'"
    """
    text = f"{type(error).__name__}: {error}".rstrip(".")
    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parents[1]), "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text


def cannot_write(path: Path, error: OSError) -> RunFolderError:
    """Return the sentence for a write that failed, with the advice that fits the cause."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "Nothing recorded so far is lost: free some space, then run the same command again."
    else:
        advice = "Choose another folder with --out, or make this one writable."
    return RunFolderError(f"Cannot write {path}: {error.strerror or error}. {advice}")
