"""Which RoboCasa an interpreter has; a script that runs there and needs the standard library alone.

In: `listing` or `content`, how closely to inspect; `content` also imports RoboCasa. Out: one JSON object on stdout.
Read next: `install.py`, which starts it and judges its output.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

PACKAGES = ("numpy", "mujoco", "robosuite", "numba", "scipy", "msgpack")

ART = (".obj", ".stl", ".msh", ".png", ".jpg", ".jpeg")

MAGIC = {".png": (b"\x89PNG",), ".jpg": (b"\xff\xd8",), ".jpeg": (b"\xff\xd8",)}
"""How files of these kinds begin; a web page or a pointer that was saved in their place does not."""


def main(look_at: str) -> dict[str, object]:
    """Return versions, where RoboCasa lies, the hash of its source, and what there is of its art."""
    found: dict[str, object] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["robosuite_commit"] = installed_commit("robosuite")
    spec = util.find_spec("robocasa")
    root = None if spec is None or spec.origin is None else Path(spec.origin).parent
    found["root"] = None if root is None else str(root)
    if root is not None:
        found["version"] = stated_version(root)
        found["source_sha256"] = source_sha256(root)
        found["commit"] = commit(root)
        found["objects"] = sum(1 for _ in (root / "models/assets/objects/objaverse").glob("*/*/model.xml"))
        if look_at == "listing":
            found["art"] = listing(root / "models/assets")
        elif look_at == "content":
            found["art"] = content(root / "models/assets")
            found["import_error"] = import_error("robocasa")
    return found


def stated_version(root: Path) -> str | None:
    """Return the `__version__` that a package states, read from its text; None if it states none."""
    stated = re.search(r"""^__version__ *= *["']([^"']+)""", (root / "__init__.py").read_text(), re.MULTILINE)
    return stated.group(1) if stated else None


def installed_commit(package: str) -> str | None:
    """Return the commit from which pip installed a package; None if it came from the package index."""
    try:
        origin = metadata.distribution(package).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    vcs = json.loads(origin).get("vcs_info", {}) if origin else {}
    return vcs.get("commit_id") or None


def import_error(package: str) -> str | None:
    """Return why a package cannot be imported; None if it can. What it prints goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(package)
    except Exception as error:  # a package may fail in any way while it is imported
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def source_sha256(root: Path) -> str:
    """Return one hash of every Python and YAML file of the package: its code, kitchens and fixture registry."""
    files = sorted(p for kind in ("*.py", "*.yaml") for p in root.rglob(kind) if p.name != "macros_private.py")
    lines = (f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(root).as_posix()}\n" for p in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def commit(root: Path) -> str | None:
    """Return the checkout's commit; None where it is no git checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def listing(assets: Path) -> dict[str, object]:
    """Return how many art files there are and one hash of their names and sizes."""
    lines = sorted(
        f"{path.stat().st_size} {path.relative_to(assets).as_posix()}\n"
        for path in assets.rglob("*")
        if path.suffix.lower() in ART
    )
    return {"files": len(lines), "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}


def content(assets: Path) -> dict[str, object]:
    """Return how many files the fixtures, objects and kitchens name, which are absent, and which are not what they say.

    `absent` and `broken` map each kind of download to a count; `example` is one such file.
    """
    named, absent, broken = 0, dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)
    example = None
    for group, path in _named_files(assets):
        named += 1
        count = absent if not path.is_file() else broken if not _is_what_it_says(path) else None
        if count is not None:
            count[group] += 1
            example = example or str(path)
    return {"named": named, "absent": absent, "broken": broken, "example": example}


GROUPS = ("textures", "fixtures", "objects")
"""Parts of RoboCasa's download."""


def _named_files(assets: Path) -> Iterator[tuple[str, Path]]:
    texts = (path.read_text(errors="replace") for path in sorted(assets.rglob("*.yaml")))
    for name in sorted({name for text in texts for name in re.findall(r"\btextures/[\w.-]+/[\w/.-]+\.png", text)}):
        yield "textures", assets / name
    for group, folder in (("fixtures", "fixtures"), ("objects", "objects/objaverse")):
        for model in sorted((assets / folder).rglob("model.xml")):
            for name in sorted(set(re.findall(r'file="([^"]+)"', model.read_text(errors="replace")))):
                if not name.startswith("/"):
                    yield group, model.parent / name


def _is_what_it_says(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
    magic = MAGIC.get(path.suffix.lower())
    if magic is not None:
        return head.startswith(magic)
    return bool(head) and not head.lstrip().lower().startswith((b"<", b"version https://git-lfs"))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules have common names
    print(json.dumps(main(sys.argv[1])))
