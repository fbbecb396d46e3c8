"""RoboCasa's requirements on a machine, and which of them are met.

In: the interpreter that should have it. Out: versions for plans; findings for `evalkit doctor robocasa`.
Read next: `probe.py`, the script that inspects an interpreter; `docs/robocasa.md`, how to install.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.mujoco.render_probe import find_renderer
from evalkit.contracts.env import Finding

SOURCE_SHA256 = "733ed9318d54c78651e0d5ce4fb607b741ea54d6aa487f51c32e5a88a1460745"
"""`probe.source_sha256` of v0.2, commit 756598a."""

NUM_OBJECTS = 914
"""Descriptions (`model.xml`) of the objects that the tasks draw from, those of RoboCasa's `objaverse` download."""

PAGE = "docs/robocasa.md"

PINS: dict[str, tuple[str, ...]] = {
    "numpy": ("1.23.2", "1.23.3", "1.23.5"),
    "mujoco": ("3.2.6",),
    "robosuite": ("1.5.0", "1.5.1"),
    "msgpack": (),
}
"""Versions that RoboCasa v0.2 accepts, and what evalkit's worker needs in addition (any version)."""

WEIGHTS = "sharinka0715/X-WAM-checkpoints"
"""Where X-WAM's authors keep their checkpoints on the Hugging Face hub."""


def look(python: str) -> dict[str, str]:
    """Return the versions and files that decide physics and images, as text, for plans and run records."""
    try:
        report = _probe(python, "listing")
    except (OSError, subprocess.SubprocessError, ValueError):
        return {"robocasa": "not installed", "art": "none"}
    if report["root"] is None:
        return {"robocasa": "not installed", "art": "none"}
    source = "v0.2" if report["source_sha256"] == SOURCE_SHA256 else f"changed, {report['source_sha256'][:16]}"
    versions = {name: str(report[name]) for name in ("robosuite", "mujoco", "numpy", "scipy")}
    art = report["art"]
    objects = f"{report['objects']} object descriptions"
    return {
        "robocasa": f"{source}, {objects}",
        **versions,
        "art": f"{art['files']} files, listing {art['sha256'][:16]}" if art["files"] else "none",
    }


def examine(python: str, *, gl: str, python_variable: str) -> list[Finding]:
    """Return every finding, each with the command or page that helps.

    Args:
        python: The interpreter.
        gl: The offscreen renderer to try.
        python_variable: Name of the environment variable that sets the interpreter.
    """
    try:
        report = _probe(python, "content")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        remedy = f"make an interpreter for RoboCasa ({PAGE}) and export {python_variable}=<its python>"
        return [Finding(what=f"interpreter {python}", ok=False, found=reason, remedy=remedy), _weights(os.environ)]
    what, remedy = f"MuJoCo with MUJOCO_GL={gl} (for robocasa)", "tools/system-libraries, or MUJOCO_GL=osmesa"
    renderer = find_renderer(python, gl, what=what, remedy=remedy, needed=True)
    return [*judge(report, python=python, python_variable=python_variable), renderer, _weights(os.environ)]


def judge(report: Mapping[str, Any], *, python: str, python_variable: str) -> list[Finding]:
    """Return the findings: what `probe.py` reported, compared with v0.2 and its pins.

    Args:
        report: Output of `probe.py` for `content`.
        python: The interpreter that it ran in.
        python_variable: Name of the environment variable that sets the interpreter.
    """
    version = str(report["python"])
    interpreter = Finding(
        what=f"interpreter {python}",
        ok=version.startswith(("3.10.", "3.11.")),
        found=version,
        remedy=f"make one of Python 3.10 or 3.11 ({PAGE}) and export {python_variable}=<its python>",
    )
    package = Finding(
        what="package robocasa",
        ok=report["root"] is not None,
        found=str(report["root"] or ""),
        remedy=f"install it into an interpreter of its own ({PAGE}) and export {python_variable}=<its python>",
    )
    if report["root"] is None:  # its other packages serve something else
        return [interpreter, package]
    return [interpreter, package, *_pins(report, python), *_contents(report, python)]


def _pins(report: Mapping[str, Any], python: str) -> list[Finding]:
    findings = []
    for package, versions in PINS.items():
        have = report[package]
        wanted = f"{package}=={versions[-1]}" if versions else package
        findings.append(
            Finding(
                what=f"{package} {' or '.join(versions)}".strip() + " (for robocasa)",
                ok=have is not None and (not versions or have in versions),
                found=str(have or ""),
                remedy=f"{python} -m pip install {wanted}",
            )
        )
    return findings


def _contents(report: Mapping[str, Any], python: str) -> list[Finding]:
    art, root = report["art"], Path(report["root"])
    same = report["source_sha256"] == SOURCE_SHA256
    findings = [
        Finding(
            what="robocasa at v0.2 (756598a)",
            ok=same,
            found="same source" if same else f"other source, commit {report['commit'] or 'unknown'}",
            remedy=f"git -C {root.parent} checkout v0.2",
        ),
        Finding(
            what="descriptions of objects",
            ok=report["objects"] >= NUM_OBJECTS,
            found=f"{report['objects']} of {NUM_OBJECTS}",
            remedy=f"{python} -m robocasa.scripts.download_kitchen_assets",
        ),
    ]
    for group in ("textures", "fixtures", "objects"):
        absent, broken = art["absent"][group], art["broken"][group]
        state = f"{absent} files absent, {broken} broken" if absent or broken else "all files that are named"
        findings.append(
            Finding(
                what=f"art: {group}",
                ok=not absent and not broken,
                found=state,
                remedy=f"{python} -m robocasa.scripts.download_kitchen_assets, or bench.robocasa.art=placeholder",
                needed=False,
            )
        )
    return findings


def _weights(environ: Mapping[str, str]) -> Finding:
    """Return whether X-WAM's released weights are here: named, or in the hub's cache."""
    named = environ.get("ROBOCASA_CHECKPOINT")
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    cached = Path(home) / "hub" / f"models--{WEIGHTS.replace('/', '--')}"
    path = Path(named) if named else cached
    return Finding(
        what="X-WAM's weights (for make eval-robocasa)",
        ok=path.exists(),
        found=str(path) if path.exists() else "",
        remedy=f"hf download {WEIGHTS}, or make eval-robocasa ROBOCASA_CHECKPOINT=<path>",
        needed=False,
    )


@functools.cache
def _probe(python: str, look_at: str) -> dict[str, Any]:
    """Run `probe.py` in an interpreter and return what it printed.

    Raises:
        OSError: If the interpreter does not start or the script fails.
    """
    script = Path(__file__).with_name("probe.py")
    done = subprocess.run([python, str(script), look_at], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    report: dict[str, Any] = json.loads(done.stdout)
    return report
