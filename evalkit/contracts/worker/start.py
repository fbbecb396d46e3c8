"""The first lines of an env process, run as a script: where Python looks for packages, then the server.

In: a socket's file descriptor. Out: a process in which the interpreter's own packages are found first.
Read next: `server.py`, which answers; `client.py`, which starts the process.

The current folder is not searched: a folder there that has the name of a package would hide the package. Evalkit's own
packages always come from the tree of the process that asks. Whatever else lies next to them comes last, so that the
packages of an installed evalkit never hide those of another interpreter.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]

PACKAGES = ("evalkit", "envs", "baselines", "xwam")


class OwnPackages:
    """Finds evalkit's packages in its tree, whatever an interpreter has under their names."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where one of our packages lies; None for any other module."""
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


def search_packages() -> None:
    """Let Python search the interpreter's own packages first and neither this folder nor the current one."""
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != FOLDER]
    sys.path.append(str(ROOT))
    sys.meta_path.insert(0, OwnPackages)


if __name__ == "__main__":
    search_packages()
    from evalkit.contracts.worker.server import main

    main(int(sys.argv[1]), PACKAGES)
