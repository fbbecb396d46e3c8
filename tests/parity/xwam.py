"""X-WAM against numbers that the released code gave: `python tests/parity/xwam.py [DIR]`.

In: a folder laid out like `../shared/golden/xwam`. Out: one line an item with its largest error; exit 1 if any exceeds
its tolerance. Read next: `tests/unit/test_xwam_golden.py`, which runs the same items under pytest.

Errors are relative to the standard deviation of the expected tensor, absolute for tables and frames.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # this file's own folder holds a file called xwam.py, which would hide the package
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from xwam.checkpoints import fill
from xwam.config import network_from_release
from xwam.network import Denoised, TextContext, XwamNetwork, free_timesteps
from xwam.sampler import Schedule, UniPCState, begin, run, unipc_grid, unipc_step

TENSOR_TOLERANCE = 2e-4
TABLE_TOLERANCE = 1e-6
MODALITIES = ("video", "actions", "proprios", "depth")


class Finding(NamedTuple):
    """One comparison."""

    item: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Return whether the error is within the tolerance; not-a-number is not."""
        return self.error <= self.tolerance


def default_folder() -> Path:
    """Return `golden/xwam` in the shared folder beside the checkout, or in `EVALKIT_SHARED`."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("EVALKIT_SHARED", beside)) / "golden" / "xwam"


def relative(item: str, got: Tensor, expected: Tensor, tolerance: float = TENSOR_TOLERANCE) -> Finding:
    """Return the largest error in standard deviations of the expected tensor; infinite where shapes differ."""
    if got.shape != expected.shape:
        return Finding(f"{item} (shape {tuple(got.shape)}, expected {tuple(expected.shape)})", math.inf, tolerance)
    spread = expected.double().std(correction=0).item() if expected.numel() > 1 else 0.0
    scale = spread or max(expected.abs().max().item(), 1e-12)
    return Finding(item, (got.double() - expected.double()).abs().max().item() / scale, tolerance)


def absolute(item: str, got: Tensor, expected: Tensor, tolerance: float = TABLE_TOLERANCE) -> Finding:
    """Return the largest absolute error; infinite where shapes differ."""
    if got.shape != expected.shape:
        return Finding(f"{item} (shape {tuple(got.shape)}, expected {tuple(expected.shape)})", math.inf, tolerance)
    return Finding(item, (got.double() - expected.double()).abs().max().item(), tolerance)


def metadata(path: Path) -> dict[str, object]:
    """Return the settings of a safetensors file."""
    with safe_open(path, "pt") as file:
        return {
            name: json.loads(value) for name, value in (file.metadata() or {}).items() if value[:1] in '{["0123456789'
        }


def load_network(folder: Path) -> XwamNetwork:
    """Return the network of `dit_weights`."""
    path = folder / "dit_weights.safetensors"
    network = XwamNetwork(network_from_release(metadata(path)["config"]))  # type: ignore[arg-type]
    fill(network, load_file(path), source=path.name)
    return network.eval().requires_grad_(False)


def network_forward(folder: Path) -> Iterator[Finding]:
    """Compare one pass with the depth branch on, off, and with guidance."""
    network, data = load_network(folder), load_file(folder / "dit_forward.safetensors")
    text, null_text = network.encode_text(data["context"]), network.encode_text(data["null_context"])

    def forward(context: TextContext, *, depth: bool) -> Denoised:
        geometry = network.geometry(data["video"], data["actions"].shape[1], data["proprios"].shape[1])
        t_action = data["t_actions"][:, None].expand(-1, geometry.num_actions)
        times = free_timesteps(data["t_video"], t_action, data["t_proprios"], geometry)
        return network(data["video"], data["actions"], data["proprios"], times, context, depth=depth)

    on, off, blind = forward(text, depth=True), forward(text, depth=False), forward(null_text, depth=False)
    for name, got in zip(MODALITIES, on, strict=True):
        yield relative(f"network, depth on: {name}", got, data[f"out_{name}"])
    for name, got, same in zip(MODALITIES[:3], off[:3], on[:3], strict=True):
        yield relative(f"network, depth off: {name}", got, data[f"out_{name}"])
        yield Finding(f"network, depth off equals on: {name}", (got - same).abs().max().item(), 0.0)
    for name, seen, unseen in zip(MODALITIES[:3], on[:3], blind[:3], strict=True):
        yield relative(f"network, guidance 2: {name}", unseen + 2 * (seen - unseen), data[f"cfg2_out_{name}"])
    yield relative("network, guidance 2: depth", on[3], data["cfg2_out_depth"])


def unipc(folder: Path) -> Iterator[Finding]:
    """Compare grids and walks of UniPC for every number of steps in the file."""
    data = load_file(folder / "unipc.safetensors")
    for num_steps in sorted(int(name[1:].split("_")[0]) for name in data if name.endswith("_init")):
        grid = unipc_grid(num_steps)
        init, matrix, trajectory = (data[f"n{num_steps}_{name}"] for name in ("init", "matrix", "trajectory"))
        yield absolute(f"unipc {num_steps}: timesteps", torch.tensor(grid.timesteps), data[f"n{num_steps}_timesteps"])
        yield absolute(f"unipc {num_steps}: sigmas", torch.tensor(grid.sigmas), data[f"n{num_steps}_sigmas"])
        state, walked = UniPCState(x=init), []
        for timestep in grid.timesteps:
            state = unipc_step(grid, state, torch.tanh(state.x @ matrix) * (0.5 + timestep / 1000))
            walked.append(state.x)
        yield relative(f"unipc {num_steps}: trajectory", torch.stack(walked), trajectory)


def async_sampler(folder: Path) -> Iterator[Finding]:
    """Compare every run of the whole denoising loop."""
    path = folder / "async_sampler.safetensors"
    network, data = load_network(folder), load_file(path)
    for name, settings in metadata(path)["runs"].items():  # type: ignore[attr-defined]
        state = begin(
            Schedule(num_video_steps=settings["video_steps"], num_action_steps=settings["action_steps"]),
            noise_video_BCTVHW=data["noise_video"],
            noise_action_BKA=data["noise_actions"],
            noise_proprio_BPS=data["noise_proprios"],
            seen_latent_BCVHW=data["cond_latents"][:, :, 0],
            seen_proprio_BS=data["cond_proprios"][:, 0],
            text=network.encode_text(data["context"]),
        )
        state = run(network, state, stop_after_actions=settings.get("stop_after_actions", False))
        assert state.depth_BCTVHW is not None
        got = (state.video.x, state.action.x, state.proprio.x, state.depth_BCTVHW)
        for modality, tensor in zip(MODALITIES, got, strict=True):
            yield relative(f"loop {name}: {modality}", tensor, data[f"{name}_{modality}"])


ITEMS: dict[str, tuple[Callable[[Path], Iterator[Finding]], tuple[str, ...]]] = {
    "network": (network_forward, ("dit_weights.safetensors", "dit_forward.safetensors")),
    "unipc": (unipc, ("unipc.safetensors",)),
    "loop": (async_sampler, ("dit_weights.safetensors", "async_sampler.safetensors")),
}
"""What is compared, and the files that it needs."""


def main(folder: Path) -> int:
    """Print one line a comparison; return 0 if all that the folder holds is within tolerance."""
    findings: list[Finding] = []
    for name, (compare, files) in ITEMS.items():
        absent = [file for file in files if not (folder / file).exists()]
        if absent:
            print(f"ABSENT {name}: {folder} holds no {', '.join(absent)}")
            continue
        with torch.inference_mode():
            for finding in compare(folder):
                findings.append(finding)
                verdict = "ok    " if finding.passed else "FAILED"
                print(f"{verdict} {finding.item}: {finding.error:.2e} (at most {finding.tolerance:.0e})", flush=True)
    failed = sum(not finding.passed for finding in findings)
    print(f"{len(findings) - failed} of {len(findings)} within tolerance")
    return 1 if failed or not findings else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()))
