"""The stage that compares X-WAM on the device with reference values, in float32 and in bfloat16.

In: `goldens`, and reference values of the released code where they are. Out: a check per part and type.
Read next: `cases.py`, what is computed; `nano.py`, the same for the shipped weights.

In float32 the error is the largest difference in standard deviations of the expected tensor; in bfloat16, whose
rounding adds up, it is the root mean square. TF32 is off except in the one check that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpu_check import cases
from gpu_check.cases import Pair, Tensors
from gpu_check.running import Report
from gpu_check.standins import is_installed
from xwam.text.umt5 import encode_ids

EXACT_LIMIT = 2e-4
"""Largest error in float32; that of the parity script on a CPU."""

COARSE_LIMIT = 0.05
"""Largest root mean square error in bfloat16."""

UMT5_COARSE_LIMIT = 0.1
"""The same for umT5, whose stream of values is itself bfloat16; a CPU gives 0.03 and 0.04."""

TF32_LIMIT = 0.01
"""Largest root mean square error of the VAE with TF32 convolutions, torch's default on a GPU."""


def largest(pair: Pair) -> float:
    """Return the largest difference, in standard deviations of what is expected."""
    return _difference(pair).abs().max().item() / _scale(pair.expected)


def root_mean_square(pair: Pair) -> float:
    """Return the root mean square difference, in standard deviations of what is expected."""
    return _difference(pair).square().mean().sqrt().item() / _scale(pair.expected)


def _difference(pair: Pair) -> Tensor:
    found, expected = pair.found.detach().double().cpu(), pair.expected.double()
    if found.shape != expected.shape:
        raise ValueError(f"{pair.item} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    return found - expected


def _scale(expected: Tensor) -> float:
    """Return the standard deviation, or the size of a single number."""
    spread = expected.double().std(correction=0).item() if expected.numel() > 1 else 0.0
    return spread or max(expected.double().abs().max().item(), 1e-12)


def tf32(allowed: bool) -> AbstractContextManager[None]:
    """Allow or forbid TF32 in convolutions; torch forbids it in matrix products by default."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed)


def parity(report: Report) -> None:
    """Compare every part on the device with the goldens, then with those of the released code."""
    device = torch.device(report.settings.device)
    folders = {"golden": cases.GOLDENS}
    if report.settings.released:
        folders["released code"] = Path(report.settings.released)
    else:
        report.left_out("comparison with the released code", "there is no folder of its reference values (--released)")
    for owner, folder in folders.items():
        _networks(report, owner, folder, device)
        _needing(report, "transformers", lambda f=folder, o=owner: _umt5(report, o, f, device))  # type: ignore[misc]
        _needing(report, "diffusers", lambda f=folder, o=owner: _vae(report, o, f, device))  # type: ignore[misc]


def _needing(report: Report, package: str, work: Callable[[], None]) -> None:
    if not is_installed(package):
        report.missing(package, f"parity of {'umT5' if package == 'transformers' else 'the VAE'}")
    else:
        work()


def _on(device: torch.device, data: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.to(device) for name, tensor in data.items()}


def _networks(report: Report, owner: str, folder: Path, device: torch.device) -> None:
    files = [folder / f"{name}.safetensors" for name in ("dit_forward", "async_sampler", "training_loss")]
    stored = [load_file(file) for file in files]
    runs = cases.settings_of(files[1])["runs"]
    for kind, limit, error in ((torch.float32, EXACT_LIMIT, largest), (torch.bfloat16, COARSE_LIMIT, root_mean_square)):
        network = cases.network_of(folder).to(device).cast(kind)
        forward, loop, training = (_on(device, data) for data in stored)
        with torch.inference_mode(), tf32(allowed=False):
            parts = {
                "network": cases.network_forward(network, forward, network.encode_text),
                "sampler": cases.denoised(network, loop, runs, network.encode_text),
                "losses": cases.training_losses(network, training, network.encode_text),
            }
        for (part, found), expected in zip(parts.items(), stored, strict=True):
            _check(report, f"{owner}: {part}, {str(kind)[6:]}", found, expected, error, limit)


def _check(
    report: Report, name: str, found: Tensors, expected: Tensors, error: Callable[[Pair], float], limit: float
) -> None:
    """Add one check: the largest error of all outputs with a reference value, named by the output that has it."""
    pairs = [Pair(item, part, expected[item].reshape(part.shape)) for item, part in found.items() if item in expected]
    errors = {pair.item: error(pair) for pair in pairs}
    worst = max(errors, key=lambda item: errors[item] if errors[item] == errors[item] else float("inf"))
    report.check(f"{name} ({worst})", errors[worst], limit)


def _umt5(report: Report, owner: str, folder: Path, device: torch.device) -> None:
    data = load_file(folder / "t5_forward.safetensors")
    model: Any = cases.umt5_of(folder)
    for kind, limit, error in (
        (torch.float32, EXACT_LIMIT, largest),
        (torch.bfloat16, UMT5_COARSE_LIMIT, root_mean_square),
    ):
        with torch.inference_mode():
            found = encode_ids(model.to(device, kind), data["ids"], data["mask"])
        report.check(f"{owner}: umT5, {str(kind)[6:]}", error(Pair("out", found, data["out"])), limit)


def _vae(report: Report, owner: str, folder: Path, device: torch.device) -> None:
    data, vae = load_file(folder / "vae22_forward.safetensors"), cases.vae_of(folder).to(device)
    ways = [("float32", False, EXACT_LIMIT, largest)]
    ways += [("float32 with TF32 convolutions", True, TF32_LIMIT, root_mean_square)] if device.type == "cuda" else []
    for name, allowed, limit, error in ways:
        with torch.inference_mode(), tf32(allowed=allowed):
            found = {
                "latents": vae.encode(data["video"].to(device)),
                "reconstruction": vae.decode(data["latents"].to(device)),
            }
        for item, tensor in found.items():
            report.check(f"{owner}: VAE {item}, {name}", error(Pair(item, tensor, data[item])), limit)
