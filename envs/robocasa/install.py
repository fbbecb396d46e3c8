"""RoboCasa's requirements on a machine, and which of them are met.

In: the interpreter that should have it. Out: versions and departures for plans; findings for `evalkit doctor robocasa`.
Read next: `probe.py`, the script that inspects an interpreter; `docs/robocasa.md`, how to install.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.mujoco.render_probe import find_renderer
from envs.robocasa.protocols import MUJOCO, PROTOCOLS, Protocol
from evalkit.contracts.env import Finding

SOURCE_SHA256 = "733ed9318d54c78651e0d5ce4fb607b741ea54d6aa487f51c32e5a88a1460745"
"""`probe.source_sha256` of v0.2, commit 756598a."""

NUM_OBJECTS = 914
"""Descriptions (`model.xml`) of the objects that the tasks draw from, those of RoboCasa's `objaverse` download."""

PAGE = "docs/robocasa.md"

NUMPY = ("1.23.5", "1.23.3", "1.23.2")
"""Versions that RoboCasa v0.2 asks for when it is imported; with its assertion changed, others draw the same scenes."""

GLOBAL_NOISE_UNTIL = (1, 5, 1)
"""The last robosuite that draws the robot's joint noise from numpy's global generator; see `scene.py`."""

UNKNOWN_VERSION = (
    "robosuite's version is unknown: the interpreter for RoboCasa has no RoboCasa, or does not start; "
    "`evalkit doctor robocasa` says what is missing."
)
"""The departure of a plan that was made without RoboCasa."""

WEIGHTS, WEIGHTS_FOLDER = "sharinka0715/X-WAM-checkpoints", "robocasa_sft"
"""Where X-WAM's authors keep their checkpoint for RoboCasa on the Hugging Face hub."""


def look(python: str) -> dict[str, str]:
    """Return the versions and files that decide physics and images, as text, for plans and run records."""
    report = _listing(python)
    if report is None:
        return {"robocasa": "not installed", "art": "none"}
    source = "v0.2" if report["source_sha256"] == SOURCE_SHA256 else f"changed, {report['source_sha256'][:16]}"
    versions = {name: str(report[name]) for name in ("robosuite", "mujoco", "numpy", "scipy")}
    if report["robosuite_commit"]:
        versions["robosuite"] += f", commit {report['robosuite_commit'][:12]}"
    art = report["art"]
    objects = f"{report['objects']} object descriptions"
    return {
        "robocasa": f"{source}, {objects}",
        **versions,
        "art": f"{art['files']} files, listing {art['sha256'][:16]}" if art["files"] else "none",
    }


def departures(python: str, protocol: Protocol) -> list[str]:
    """Return one sentence for each way in which an interpreter differs from the protocol's; one without RoboCasa.

    That sentence names no path, so that the hash of a plan does not depend on where the interpreter is.
    """
    report = _listing(python)
    return [UNKNOWN_VERSION] if report is None else judge_versions(report, protocol)


def judge_versions(report: Mapping[str, Any], protocol: Protocol) -> list[str]:
    """Return the departures of an interpreter from a protocol, one sentence each.

    Args:
        report: Output of `probe.py`.
        protocol: States the versions with which its evaluation ran.
    """
    robosuite, mujoco, sentences = report["robosuite"], report["mujoco"], []
    if report["source_sha256"] != SOURCE_SHA256:
        sentences.append("RoboCasa's source is not that of v0.2.")
    if robosuite != protocol.robosuite:
        differ = _draws_globally(robosuite) != _draws_globally(protocol.robosuite)
        consequence = "other kitchens are drawn" if differ else "its scenes were not compared"
        sentences.append(f"robosuite {robosuite} instead of {protocol.robosuite}: {consequence}.")
    if mujoco != MUJOCO:
        sentences.append(f"mujoco {mujoco} instead of {MUJOCO}: physics differs.")
    return sentences


def _draws_globally(robosuite: str | None) -> bool:
    """Return whether a version of robosuite draws joint noise from numpy's global generator."""
    numbers = re.findall(r"\d+", robosuite or "")
    return tuple(int(number) for number in numbers[:3]) <= GLOBAL_NOISE_UNTIL


def examine(python: str, *, protocol: str, art: str, gl: str, python_variable: str) -> list[Finding]:
    """Return every finding, each with the command or page that helps.

    Args:
        python: The interpreter.
        protocol: Name of the protocol that must fit.
        art: `real` if the art must be there, or `placeholder`.
        gl: The offscreen renderer to try.
        python_variable: Name of the environment variable that sets the interpreter.
    """
    try:
        report = _probe(python, "content")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        remedy = f"make an interpreter for RoboCasa ({PAGE}) and export {python_variable}=<its python>"
        return [Finding(what=f"interpreter {python}", ok=False, found=reason, remedy=remedy), _weights(os.environ)]
    findings = judge(report, python=python, protocol=protocol, art=art, python_variable=python_variable)
    if report["mujoco"] is not None:
        what, remedy = f"MuJoCo with MUJOCO_GL={gl} (for robocasa)", "tools/system-libraries, or MUJOCO_GL=osmesa"
        findings.append(find_renderer(python, gl, what=what, remedy=remedy, needed=True))
    return [*findings, _weights(os.environ)]


def judge(report: Mapping[str, Any], *, python: str, protocol: str, art: str, python_variable: str) -> list[Finding]:
    """Return the findings: what `probe.py` reported, compared with v0.2 and with what each protocol needs.

    No remedy changes an interpreter that serves something else, or a version in place.

    Args:
        report: Output of `probe.py` for `content`.
        python: The interpreter that it ran in.
        protocol: Name of the protocol that must fit; the others are optional.
        art: `real` if the art must be there; it is optional with `placeholder`.
        python_variable: Name of the environment variable that sets the interpreter.
    """
    version, root = str(report["python"]), report["root"]
    export = f"({PAGE}) and export {python_variable}=<its python>"
    interpreter = Finding(
        what=f"interpreter {python}",
        ok=version.startswith(("3.10.", "3.11.")),
        found=version,
        remedy=f"make one of Python 3.10 or 3.11 {export}",
    )
    stated = None if root is None else str(report["version"])
    other = f"v{stated} is another benchmark (RoboCasa365), in {root}" if stated else ""
    package = Finding(
        what="package robocasa v0.2",
        ok=stated is not None and stated.startswith("0.2."),
        found=f"{stated} in {root}" if stated is not None and stated.startswith("0.2.") else other,
        remedy=f"make a fresh interpreter for v0.2 {export}" + ("; leave this one as it is" if stated else ""),
    )
    if not package.ok:  # the interpreter's other packages serve something else
        return [interpreter, package]
    fresh = f"make a fresh interpreter with {{}} {export}; leave this one as it is"
    return [
        interpreter,
        package,
        *_versions(report, python=python, protocol=protocol, fresh=fresh),
        *_contents(report, python, art_needed=art == "real"),
    ]


def _versions(report: Mapping[str, Any], *, python: str, protocol: str, fresh: str) -> list[Finding]:
    """Return whether packages have the versions that RoboCasa and each protocol need."""
    error = report["import_error"]

    def finding(user: str, package: str, *accepted: str, ok: bool = False, needed: bool = True) -> Finding:
        have, wanted = report[package], f"{package}=={accepted[0]}" if accepted else package
        return Finding(
            what=f"{user}: {package} {' or '.join(accepted)}".strip(),
            ok=have is not None and (ok or not accepted or have in accepted),
            found=str(have or ""),
            remedy=fresh.format(wanted) if have else f"{python} -m pip install --no-deps {wanted}",
            needed=needed,
        )

    return [
        finding("robocasa v0.2", "numpy", *NUMPY, ok=error is None),
        finding("robocasa v0.2", "mujoco", MUJOCO),
        *(
            finding(f"protocol {name}", "robosuite", each.robosuite, needed=name == protocol)
            for name, each in PROTOCOLS.items()
        ),
        finding("evalkit's worker", "msgpack"),
        Finding(
            what="robocasa can be imported",
            ok=error is None,
            found=str(error or ""),
            remedy=f"{python} -c 'import robocasa' shows all of the error",
        ),
    ]


def _contents(report: Mapping[str, Any], python: str, *, art_needed: bool) -> list[Finding]:
    art = report["art"]
    same = report["source_sha256"] == SOURCE_SHA256
    findings = [
        Finding(
            what="robocasa's source as of v0.2 (756598a)",
            ok=same,
            found="same source" if same else f"other source, commit {report['commit'] or 'unknown'}",
            remedy=f"a fresh clone of v0.2 in a fresh interpreter ({PAGE}); plans name the changed source",
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
                needed=art_needed,
            )
        )
    return findings


def _weights(environ: Mapping[str, str]) -> Finding:
    """Return whether X-WAM's released weights are here: named, or in the hub's cache."""
    named = environ.get("ROBOCASA_CHECKPOINT")
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    cached = Path(home) / "hub" / f"models--{WEIGHTS.replace('/', '--')}"
    path = Path(named) if named else next(cached.glob(f"snapshots/*/{WEIGHTS_FOLDER}"), cached / WEIGHTS_FOLDER)
    download = f"hf download {WEIGHTS} --include '{WEIGHTS_FOLDER}/*'"
    return Finding(
        what="X-WAM's weights (for make eval-robocasa)",
        ok=path.exists(),
        found=str(path) if path.exists() else "",
        remedy=f"{download}, or make eval-robocasa ROBOCASA_CHECKPOINT=<path>",
        needed=False,
    )


def _listing(python: str) -> dict[str, Any] | None:
    """Return what `probe.py` reports of an interpreter; None if it has no RoboCasa, or does not start."""
    try:
        report = _probe(python, "listing")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return report if report["root"] is not None else None


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
