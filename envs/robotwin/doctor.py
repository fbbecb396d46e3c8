"""The findings of `evalkit doctor robotwin`: what RoboTwin needs on this machine, each with the way to get it.

In: a checkout, an interpreter, a manifest, the planner and renderer that are asked for. Out: findings.
Read next: `install.py`, `assets.py` and `render_probe.py`, which look; `docs/robotwin.md`, how to install.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.contracts.env import Finding, WorkerLaunch
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.worker.client import EnvWorker, Timeouts

from . import episodes
from .assets import CUROBO_FILES, EMBODIMENT, Assets, scan
from .install import DENOISER_ERRORS, PAGE, WORKER_ENVIRON, Output, check_root, run_script
from .protocols import PLANNER, RENDERER, SAPIEN, Protocol
from .rendering import NO_DIFFERENCE
from .source import Source, recognise
from .tasks import STEP_LIMITS

NEEDED = (
    *("sapien", "numpy", "scipy", "toppra", "transforms3d", "trimesh", "imageio", "h5py", "opencv-python", "Pillow"),
    *("gymnasium", "PyYAML", "msgpack"),
)
"""Packages without which no worker starts; the others that RoboTwin imports are replaced by stand-ins."""

RENDER_S = 180
"""Seconds after which a renderer hangs; on two busy CPU cores the first image takes 20."""

WORKER_GB = 4
"""Free memory for one worker with all assets."""

LAVAPIPE = (
    "install a Vulkan driver; without a GPU that is Mesa's lavapipe 25.0 or newer: on Debian 12 `apt-get install "
    f"-t bookworm-backports mesa-vulkan-drivers libdrm2 libdrm-amdgpu1` ({PAGE})"
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is examined.

    Attributes:
        root: The folder that is named as RoboTwin's checkout.
        python: The interpreter.
        protocol: The protocol that must fit.
        planner: The planner that is asked for.
        renderer: The renderer that is asked for.
        manifest: File of the vetted episodes.
    """

    root: Path | None
    python: str
    protocol: Protocol
    planner: str
    renderer: str
    manifest: Path


def examine(request: Request) -> list[Finding]:
    """Return every finding, each with the command or page that helps."""
    return [
        *_checkout(request),
        *_interpreter(request),
        _manifest(request.manifest, request.protocol),
        memory(Path("/proc/meminfo")),
    ]


# ---- the checkout


def _checkout(request: Request) -> Iterator[Finding]:
    commit, root = request.protocol.commit, request.root
    what = f"checkout of RoboTwin at {commit.short}"
    remedy = (
        f"git clone https://github.com/RoboTwin-Platform/RoboTwin, git checkout {commit.short}, "
        f"export EVALKIT_ROBOTWIN_ROOT=<its folder> ({PAGE})"
    )
    if root is None:
        yield Finding(what=what, ok=False, found="", remedy=remedy)
        return
    try:
        check_root(root, request.protocol)
    except EvalkitError as error:
        yield Finding(what=what, ok=False, found=str(error), remedy=remedy)
        return
    source = recognise(root)
    yield Finding(what=what, ok=True, found=str(root), remedy=remedy)
    yield _changes(source, root)
    yield from judge_assets(scan(root), root, scripts=commit.script_folder)


def _changes(source: Source, root: Path) -> Finding:
    return Finding(
        what="task code, settings and sentences as committed",
        ok=not source.changed,
        found=f"changed: {', '.join(source.changed)}" if source.changed else "no change",
        remedy=f"git -C {root} status; plans name what is changed",
        needed=False,
    )


def judge_assets(assets: Assets, root: Path, *, scripts: str) -> Iterator[Finding]:
    """Yield the findings about a checkout's assets.

    Args:
        assets: What `assets.scan` found.
        root: The checkout.
        scripts: Its folder of scripts.
    """
    download = f"cd {root} && bash {scripts}/_download_assets.sh (16 GB)"
    present = assets.objects - len(assets.missing)
    runnable = f"{len(assets.complete_tasks)} of {len(STEP_LIMITS)} tasks have theirs"
    first = next(iter(assets.missing.values()), "")
    yield Finding(
        what="assets: objects that tasks name",
        ok=not assets.missing,
        found=f"{present} of {assets.objects}, {runnable}" + (f"; absent: {first} and others" if first else ""),
        remedy=f"{download}; episodes that miss one end as skipped",
        needed=not assets.complete_tasks,
    )
    yield Finding(
        what="assets: background textures (for randomized)",
        ok=not assets.texture_faults,
        found="; ".join(assets.texture_faults) or f"{assets.textures} for evaluations",
        remedy=f"{download}; a file that is none of them must go; without any, randomized episodes end as skipped",
        needed=bool(assets.textures),
    )
    yield Finding(
        what="assets: files of the arms",
        ok=not assets.arm_faults,
        found="; ".join(assets.arm_faults) or EMBODIMENT,
        remedy=f"{download}, then python {scripts}/update_embodiment_config_path.py, which writes this machine's paths",
    )
    yield Finding(
        what="assets: numbers of models",
        ok=not assets.index_faults,
        found="; ".join(assets.index_faults) or "each names one model",
        remedy=f"remove what does not belong to RoboTwin, or {download}: a task would draw another model",
    )


# ---- the interpreter


def _interpreter(request: Request) -> Iterator[Finding]:
    python = request.python
    remedy = f"make one of Python 3.10 or 3.11 ({PAGE}) and export EVALKIT_ROBOTWIN_PYTHON=<its python>"
    try:
        report = _imports(python)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        yield Finding(what=f"interpreter {python}", ok=False, found=_first_line(error), remedy=remedy)
        return
    yield Finding(
        what=f"interpreter {python}",
        ok=str(report["python"]).startswith(("3.10.", "3.11.")),
        found=str(report["python"]),
        remedy=remedy,
    )
    yield from judge_packages(report, python)
    yield from judge_planners(report, request.planner, python=python, root=request.root)
    if report["sapien"] is not None and report["errors"]["sapien"] is None:
        yield from _rendering(request, cuda=report["cuda"])


def judge_packages(report: Mapping[str, Any], python: str) -> Iterator[Finding]:
    """Yield whether the packages of a worker are there.

    Args:
        report: Output of `probe.py` for `import`.
        python: The interpreter that it ran in.
    """
    lacking = [name for name in NEEDED if report[name] is None]
    broken = [f"{name}: {report['errors'][name]}" for name in ("sapien", "cv2") if report["errors"][name]]
    yield Finding(
        what="packages of RoboTwin's worker",
        ok=not lacking and not broken,
        found=f"absent: {', '.join(lacking)}" if lacking else "; ".join(broken) or f"all {len(NEEDED)}",
        remedy=f"{python} -m pip install {' '.join(lacking) or 'libgl1 by apt-get; ' + PAGE}",
    )
    yield Finding(
        what=f"SAPIEN {SAPIEN}, the protocol's",
        ok=report["sapien"] == SAPIEN,
        found=str(report["sapien"] or ""),
        remedy=f"an interpreter with sapien=={SAPIEN}; it does not start without a GPU, and another one is a departure",
        needed=False,
    )


def judge_planners(report: Mapping[str, Any], chosen: str, *, python: str, root: Path | None) -> Iterator[Finding]:
    """Yield whether each planner can run; only the chosen one is needed.

    Args:
        report: Output of `probe.py` for `import`.
        chosen: The planner that is asked for.
        python: The interpreter that the report is of.
        root: The checkout, whose arms need files for curobo.
    """
    files = [name for name in CUROBO_FILES if root is not None and not (root / EMBODIMENT / name).is_file()]
    lacks = {
        PLANNER: (None if report["cuda"] else "no CUDA device")
        or report["errors"]["curobo"]
        or (f"no {EMBODIMENT}/{files[0]}" if files else None),
        "mplib": report["errors"]["mplib"],
        "cpu": next((f"no package {name}" for name in ("scipy", "toppra") if report[name] is None), None),
    }
    remedies = {
        PLANNER: f"RoboTwin's installer ({PAGE}); without CUDA bench.robotwin.planner=cpu, whose numbers are no scores",
        "mplib": f"{python} -m pip install mplib==0.2.1 'numpy<2'",
        "cpu": f"{python} -m pip install scipy toppra",
    }
    for name, lack in lacks.items():
        yield Finding(
            what=f"planner {name}",
            ok=lack is None,
            found=str(lack or report["cuda"] if name == PLANNER else lack or "can be imported"),
            remedy=remedies[name],
            needed=name == chosen,
        )


# ---- rendering


def _rendering(request: Request, *, cuda: str | None) -> Iterator[Finding]:
    what = f"SAPIEN renders ({request.renderer})"
    try:
        output = _render(request.python, request.renderer)
    except subprocess.TimeoutExpired:
        yield Finding(what=what, ok=False, found=f"hangs for {RENDER_S} s", remedy=LAVAPIPE)
        return
    except (OSError, ValueError) as error:
        yield Finding(what=what, ok=False, found=_first_line(error), remedy=LAVAPIPE)
        return
    yield from judge_rendering(output, request.renderer)
    yield _together(request, cuda)


def judge_rendering(output: Output, renderer: str) -> Iterator[Finding]:
    """Yield what a rendered image of `render_probe.py` shows.

    Args:
        output: Its report and what it printed to stderr.
        renderer: The renderer that it was asked for.
    """
    report = output.report
    kind = {True: "a CUDA device", False: "no CUDA device", None: "of unknown kind"}[report["device"]["is_cuda"]]
    exact = report["depth_error_m"] < 1e-3 and report["is_red"]
    yield Finding(
        what=f"SAPIEN renders ({renderer})",
        ok=exact,
        found=(
            f"{report['device']['name']}, {kind}, first image in {report['seconds']:.0f} s"
            + ("" if exact else f"; depth is {1000 * report['depth_error_m']:.0f} mm off, or colours are wrong")
        ),
        remedy=LAVAPIPE,
    )
    if renderer == RENDERER:
        line = denoiser_error(output.stderr)
        yield Finding(
            what="denoiser of the ray tracer",
            ok=line is None,
            found=line or "no error",
            remedy=f"a GPU on which OIDN runs ({PAGE}); or bench.robotwin.renderer=raster, whose numbers are no scores",
        )


def denoiser_error(printed: str) -> str | None:
    """Return the first line that says that the denoiser does not work; images are noise then."""
    lines = printed.splitlines()
    return next((line for line in lines if any(re.search(pattern, line) for pattern in DENOISER_ERRORS)), None)


def _together(request: Request, cuda: str | None) -> Finding:
    """Return whether the GPU renders while it computes: on some machines the renderer then hangs."""
    what, remedy = "CUDA and rendering at the same time", f"let the policy compute on another GPU ({PAGE})"
    if cuda is None:
        return Finding(what=what, ok=False, found="no CUDA device", remedy="needed for curobo only", needed=False)
    try:
        report = _render(request.python, request.renderer, "cuda").report
    except subprocess.TimeoutExpired:
        return Finding(what=what, ok=False, found=f"the renderer hangs for {RENDER_S} s", remedy=remedy)
    except (OSError, ValueError) as error:
        return Finding(what=what, ok=False, found=_first_line(error), remedy=remedy)
    return Finding(what=what, ok=True, found=f"{report['computed']}, {report['seconds']:.0f} s", remedy=remedy)


def hiding(launch: WorkerLaunch, spec: EnvSpec) -> Finding:
    """Return what an env hides, and the largest difference that this makes in a first frame.

    Args:
        launch: How to start the env; it hides parts.
        spec: What it gives.
    """
    what = "decimate=background changes no image"
    remedy = "bench.robotwin.decimate=none"
    worker = EnvWorker(launch, spec, timeouts=Timeouts(start_s=RENDER_S))
    try:
        found = worker.build().about["hidden"]
    except (EpisodeFault, EvalkitError) as error:
        return Finding(what=what, ok=False, found=_first_line(error), remedy=remedy, needed=False)
    finally:
        worker.close()
    return Finding(what=what, ok=found.endswith(f" {NO_DIFFERENCE}"), found=found, remedy=remedy, needed=False)


# ---- the rest


def _manifest(path: Path, protocol: Protocol) -> Finding:
    what = f"manifest of vetted episodes ({protocol.seeds})"
    remedy = f"{episodes.VET} or {episodes.IMPORT}"
    try:
        manifest = episodes.find(path, protocol)
    except EvalkitError as error:
        return Finding(what=what, ok=False, found=str(error), remedy=remedy)
    if manifest is None:
        return Finding(what=what, ok=False, found=f"no file {path}", remedy=remedy)
    counts = [f"{sum(len(e.accepted) for e in manifest.entries if e.setting == s)} {s}" for s in manifest.settings]
    return Finding(what=what, ok=True, found=f"{', '.join(counts)}; hash {manifest.sha256[:16]}, {path}", remedy=remedy)


def memory(meminfo: Path) -> Finding:
    """Return whether a worker has enough free memory.

    Args:
        meminfo: Linux's table of memory.
    """
    match = re.search(r"MemAvailable: *(\d+) kB", meminfo.read_text()) if meminfo.is_file() else None
    free_gb = int(match[1]) / 1e6 if match else None
    return Finding(
        what=f"{WORKER_GB} GB of free memory for each worker",
        ok=free_gb is None or free_gb > WORKER_GB,
        found="unknown" if free_gb is None else f"{free_gb:.0f} GB: at most {int(free_gb / WORKER_GB)} workers",
        remedy="fewer run.workers, or end other processes",
        needed=False,
    )


@functools.cache
def _imports(python: str) -> Mapping[str, Any]:
    return run_script("probe.py", python, "import").report


@functools.cache
def _render(python: str, *arguments: str) -> Output:
    return run_script("render_probe.py", python, *arguments, timeout_s=RENDER_S, environ=WORKER_ENVIRON)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
