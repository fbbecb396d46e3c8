"""The first two stages: what the machine is, and the best speed of its matrix products.

In: a device. Out: names and versions; operations and bytes a second.
Read next: `parity.py`, the first stage that uses X-WAM.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from gpu_check.running import Report
from gpu_check.standins import is_installed
from gpu_check.timing import fastest, free_gib

OPTIONAL = {
    "einops": "a stand-in of a few lines is used",
    "jaxtyping": "annotations are not checked",
    "scipy": "nano's whole engine",
    "diffusers": "the VAE",
    "transformers": "umT5",
    "numba": "scoring",
    "cv2": "scoring",
}
"""Packages that gpu-check uses where they are, and what is left out without them."""

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def environment(report: Report) -> None:
    """Say which machine this is, and check that the device computes."""
    report.fact(
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=os.cpu_count(),
        torch=torch.__version__,
        device=report.settings.device,
        commit=_commit(),
    )
    report.fact(packages={name: _version(name) for name in ("numpy", "safetensors", "triton", *OPTIONAL)})
    for name, consequence in OPTIONAL.items():
        if not is_installed(name):
            report.missing(name, consequence)
    if report.settings.on_gpu:
        _describe_gpu(report)
    device = torch.device(report.settings.device)
    product = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
    report.check("a product of 64 x 64 ones", (product.cpu() - 64).abs().max().item(), 0.0)


def _describe_gpu(report: Report) -> None:
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} (CUDA {torch.version.cuda})"
        raise RuntimeError(f"{built} finds no CUDA device; without one, use --device cpu")
    device = torch.device(report.settings.device)
    traits = torch.cuda.get_device_properties(device)
    report.fact(
        gpu=traits.name,
        capability=f"{traits.major}.{traits.minor}",
        multiprocessors=traits.multi_processor_count,
        memory_gib=traits.total_memory / 2**30,
        free_gib=free_gib(device),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        driver=_driver(),
    )


def _driver() -> str:
    """Return the version of the driver, as nvidia-smi gives it."""
    if shutil.which("nvidia-smi") is None:
        return "unknown: there is no nvidia-smi"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    return answer.stdout.strip().split("\n")[0] or f"unknown: {answer.stderr.strip()}"


def _commit() -> str:
    """Return the commit of this checkout."""
    asked = ["git", "-C", str(Path(__file__).parents[2]), "rev-parse", "--short=12", "HEAD"]
    if shutil.which("git") is None:
        return "unknown"
    return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout.strip() or "unknown"


def _version(name: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    if not is_installed(name):
        return None
    try:
        return importlib.metadata.version({"cv2": "opencv-python"}.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def peak(report: Report) -> None:
    """Measure the speed of large square matrix products in each type, and of a copy."""
    device = torch.device(report.settings.device)
    big = report.settings.on_gpu and not report.settings.quick
    sizes, rounds = ((4096, 8192, 12288), 10) if big else ((256, 512), 3)
    for name, kind in TYPES.items():
        _best_product(report, name, kind, sizes, rounds)
    if report.settings.on_gpu:
        torch.set_float32_matmul_precision("high")
        _best_product(report, "tf32", torch.float32, sizes, rounds)
        torch.set_float32_matmul_precision("highest")
    source = torch.empty((1 << 30) if big else (1 << 22), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device, rounds)
    report.fact(copy_tb_per_s=2 * source.numel() / seconds / 1e12)


def _best_product(report: Report, name: str, kind: torch.dtype, sizes: tuple[int, ...], rounds: int) -> None:
    device, best = torch.device(report.settings.device), 0.0
    for size in sizes:
        if report.left_s() < 3:
            report.left_out(f"{name}, {size} x {size}", "the time of this stage is over")
            break
        a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        speed = 2 * size**3 / fastest(lambda a=a, b=b: a @ b, device, rounds)  # type: ignore[misc]
        report.row(type=name, size=size, tflops=speed / 1e12)
        best = max(best, speed)
    report.fact(**{f"{name}_tflops": best / 1e12})


def measured_peak(report: Report, kind: torch.dtype) -> float | None:
    """Return the operations a second that stage `peak` measured for a type; None if it did not run."""
    name = next(name for name, value in TYPES.items() if value == kind)
    tflops = report.earlier.get("peak", {}).get(f"{name}_tflops")
    return None if tflops is None else tflops * 1e12
