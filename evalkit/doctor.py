"""Requirements of evalkit and of its benches on this machine.

In: nothing. Out: findings, each with the way to get what is missing.
Read next: `tools/system-libraries`, which installs what is missing on Debian.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from evalkit.contracts import plugins
from evalkit.contracts.bound import BoundBench
from evalkit.contracts.env import ExaminedBench, Finding
from evalkit.contracts.errors import EvalkitError
from evalkit.score.metrics.lpips import find_weights

EMBEDDED_BENCH = "robosuite"
"""The bench that `make setup` installs; its findings are those of every machine."""

PYTHONS = ((3, 11), (3, 12))
"""Versions of Python that the tests ran with. On later ones pip finds no numpy below 2, which robosuite needs."""

_LPIPS_REMEDY = "install evalkit again: its package holds them; without them LPIPS is reported as unavailable"


def examine() -> list[Finding]:
    """Return all findings, required ones first."""
    findings = [
        Finding(
            what="Python 3.11 or 3.12",
            ok=sys.version_info[:2] in PYTHONS,
            found=platform.python_version(),
            remedy="make clean, then make setup PYTHON=python3.11",
        )
    ]
    findings += [_package(name, extra="") for name in ("numpy", "torch", "h5py", "av", "hydra-core")]
    findings.append(_library("libGL.so.1", "libgl1", "OpenCV"))
    embedded = plugins.load_bench(EMBEDDED_BENCH)
    findings += examine_bench(BoundBench(plugin=embedded, config=embedded.config_type()))
    findings.append(_disk())
    findings.append(_probe("weights for LPIPS (alex)", lambda: str(find_weights("alex")), _LPIPS_REMEDY, needed=False))
    findings += [_package(name, extra="viz", needed=False) for name in ("open3d", "rerun-sdk")]
    findings += [_package(name, extra="wan", needed=False) for name in ("diffusers", "transformers", "ftfy")]
    findings += [
        _package("ray", extra="ray", needed=False),
        _library("libusb-1.0.so.0", "libusb-1.0-0", "open3d", needed=False),
    ]
    findings.append(_cuda())
    return findings


def examine_bench(bench: BoundBench) -> list[Finding]:
    """Return what a bench with its settings needs in addition to evalkit, and whether it is there; maybe nothing."""
    return bench.plugin.examine(bench.config) if isinstance(bench.plugin, ExaminedBench) else []


def _package(name: str, *, extra: str, needed: bool = True) -> Finding:
    remedy = f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "make setup"
    try:
        return Finding(what=name, ok=True, found=metadata.version(name), remedy=remedy, needed=needed)
    except metadata.PackageNotFoundError:
        return Finding(what=name, ok=False, found="", remedy=remedy, needed=needed)


def _library(file: str, package: str, user: str, *, needed: bool = True) -> Finding:
    what, remedy = f"{file} (for {user})", f"apt-get install {package}"
    return _probe(what, lambda: ctypes.CDLL(file)._name, remedy, needed=needed)


def _disk() -> Finding:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding(
        what="5 GB of free disk space",
        ok=free_gb > 5,
        found=f"{free_gb:.0f} GB",
        remedy="delete files, or write to another disk with --out",
    )


def _cuda() -> Finding:
    def device() -> str:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            raise OSError("none")
        return str(torch.cuda.get_device_name(0))

    return _probe("CUDA device", device, "the 5B model needs one; the nano model does not", needed=False)


def _probe(what: str, probe: Callable[[], str], remedy: str, *, needed: bool) -> Finding:
    try:
        return Finding(what=what, ok=True, found=probe(), remedy=remedy, needed=needed)
    except (OSError, ImportError, EvalkitError, subprocess.SubprocessError) as error:
        return Finding(what=what, ok=False, found=str(error), remedy=remedy, needed=needed)
