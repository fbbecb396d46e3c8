"""What is needed to repeat a run: versions, commit, machine.

In: the plan and the settings of the run. Out: the content of `run.json`.
Read next: `run_folder.py`, which stores it; `evalkit/report/`, which shows it.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from evalkit.store.plan import Plan
from evalkit.store.run_folder import RunFolder, utc_now

PACKAGES = ("evalkit", "numpy", "torch", "mujoco", "robosuite", "gymnasium", "h5py", "av", "opencv-python", "scipy")


def begin_session(folder: RunFolder, run_settings: Any, *, shard: str | None = None, **facts: Any) -> None:
    """Add the start of a session to `run.json`; the first session also adds plan, bench and policy.

    Args:
        folder: The run folder.
        run_settings: The settings of the run.
        shard: Which part of the plan the session runs, for example `1/4`; None for all of it.
        facts: Further facts about the session, JSON values.
    """
    about = folder.read_about() or _about(folder.plan)
    about.setdefault("sessions", []).append(
        {
            "started": utc_now(),
            "finished": None,
            "run": asdict(run_settings),
            **({} if shard is None else {"shard": shard}),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
            **facts,
        }
    )
    folder.write_about(about)


def end_session(folder: RunFolder, **facts: Any) -> None:
    """Note the end of the last session, and facts about it, JSON values."""
    about = folder.read_about()
    about["sessions"][-1] |= {"finished": utc_now(), **facts}
    folder.write_about(about)


def versions() -> dict[str, str]:
    """Return the installed versions of packages that can affect a result."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> str | None:
    """Return evalkit's git commit, with `+changes` if the tree differs from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """Return system, processor, cores and memory of the machine, without its name."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "plan_sha256": plan.sha256,
        "protocol": plan.protocol,
        "departures": list(plan.departures),
        "success_after_steps": plan.success_after_steps,
        "bench": _part(plan.bench),
        "policy": _part(plan.policy),
    }


def _part(part: Any) -> Mapping[str, Any]:
    return {"name": part.name, "config": dict(part.config), "provenance": dict(part.provenance)}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
