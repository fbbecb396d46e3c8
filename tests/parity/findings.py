"""What the parity scripts of X-WAM share: one comparison, and what becomes of an item that cannot be compared.

In: generators of comparisons. Out: the comparisons, the last one failed where a generator broke.
Read next: `xwam.py` and `xwam_data.py`, which use it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch


class Finding(NamedTuple):
    """One comparison; `reason` says why where there could be none."""

    item: str
    error: float
    tolerance: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Return whether the error is within the tolerance; not-a-number is not."""
        return self.error <= self.tolerance

    def line(self) -> str:
        """Return what is printed."""
        verdict = "ok    " if self.passed else "FAILED"
        text = self.reason or f"{self.error:.2e} (at most {self.tolerance:.0e})"
        return f"{verdict} {self.item}: {text}"


class Main(Protocol):
    """A script's work."""

    def __call__(self, folder: Path, *, allow_absent: bool = False) -> int: ...


def default_folder() -> Path:
    """Return `golden/xwam` in the shared folder next to the checkout, or in `EVALKIT_SHARED`."""
    default = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("EVALKIT_SHARED", default)) / "golden" / "xwam"


def examined(name: str, compare: Callable[[Path], Iterator[Finding]], folder: Path) -> Iterator[Finding]:
    """Yield the comparisons of an item; whatever stops it, such as a damaged file, becomes a failed one."""
    try:
        with torch.inference_mode():
            found = list(compare(folder))
    except Exception as error:
        text = " ".join(str(error).split()) or "no reason was given"
        yield Finding(name, math.inf, 0.0, f"it could not be compared, {type(error).__name__}: {text}")
        return
    yield from found or [Finding(name, math.inf, 0.0, "its files hold nothing to compare")]


def from_command_line(main: Main, arguments: Sequence[str], default: Path) -> int:
    """Run a script on the folder it is given, or on the golden one; return the exit status."""
    folders = [argument for argument in arguments if not argument.startswith("--")]
    if len(folders) > 1 or set(arguments) - set(folders) - {"--allow-absent"}:
        print("Give at most one folder, and --allow-absent if items without files are fine.", file=sys.stderr)
        return 2
    return main(Path(folders[0]) if folders else default, allow_absent="--allow-absent" in arguments)
