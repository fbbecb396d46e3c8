"""X-WAM against numbers that the released code gave: `python tests/parity/xwam.py [DIR] [--allow-absent]`.

In: a folder laid out like `../shared/golden/xwam`. Out: one line an item with its largest error; exit 1 if any exceeds
its tolerance, cannot be compared, or is absent (unless allowed).
Read next: `findings.py`, what a comparison is; `tests/unit/test_xwam_golden.py`, which runs the same under pytest.

Errors are relative to the standard deviation of the expected tensor, absolute for tables and frames.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # this file's own folder holds a file called xwam.py, which would hide the package
    HERE = Path(__file__).resolve()
    sys.path[:] = [str(HERE.parents[2]), *(entry for entry in sys.path if Path(entry or ".").resolve() != HERE.parent)]
    sys.path.append(str(HERE.parents[2] / "tools"))  # the cases are those of tools/gpu-check

import numpy as np
import torch
import torch.nn.functional as F
from gpu_check import cases
from safetensors.torch import load_file
from torch import Tensor

from evalkit.dataset.axes import ROBOTWIN_AXES
from tests.parity import xwam_data
from tests.parity.findings import Finding, default_folder, examined, from_command_line
from xwam.checkpoints.bundle import load_released
from xwam.checkpoints.wan import umt5_from_wan, vae_from_wan
from xwam.flow.guidance import guide
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import XwamNetwork
from xwam.robots.axes import accumulate
from xwam.robots.image_pipeline import ImagePipeline
from xwam.text.umt5 import encode_ids

TENSOR_TOLERANCE = 2e-4
TABLE_TOLERANCE = 1e-6
GUIDANCE = 2.0
NUM_PLACES = 512


def relative(item: str, got: Tensor | None, expected: Tensor, tolerance: float = TENSOR_TOLERANCE) -> Finding:
    """Return the largest error in standard deviations of the expected tensor; infinite where shapes differ."""
    if got is None:
        return Finding(f"{item} (absent)", math.inf, tolerance)
    if got.shape != expected.shape:
        return Finding(f"{item} (shape {tuple(got.shape)}, expected {tuple(expected.shape)})", math.inf, tolerance)
    spread = expected.double().std(correction=0).item() if expected.numel() > 1 else 0.0
    scale = spread or max(expected.abs().max().item(), 1e-12)
    return Finding(item, (got.double() - expected.double()).abs().max().item() / scale, tolerance)


def absolute(item: str, got: Tensor, expected: Tensor, tolerance: float = TABLE_TOLERANCE) -> Finding:
    """Return the largest absolute error; infinite where shapes differ."""
    if got is None:
        return Finding(f"{item} (absent)", math.inf, tolerance)
    if got.shape != expected.shape:
        return Finding(f"{item} (shape {tuple(got.shape)}, expected {tuple(expected.shape)})", math.inf, tolerance)
    return Finding(item, (got.double() - expected.double()).abs().max().item(), tolerance)


def network_forward(folder: Path) -> Iterator[Finding]:
    """Compare one pass with the depth branch on, off, and with guidance."""
    network, data = cases.network_of(folder), load_file(folder / "dit_forward.safetensors")
    text, null_text = network.encode_text(data["context"]), network.encode_text(data["null_context"])
    on, off = cases.one_pass(network, data, text, depth=True), cases.one_pass(network, data, text, depth=False)
    blind = cases.one_pass(network, data, null_text, depth=False)
    for name, got in zip(cases.MODALITIES, on, strict=True):
        yield relative(f"network, depth on: {name}", got, data[f"out_{name}"])
    for name, got, same in zip(cases.MODALITIES[:3], off[:3], on[:3], strict=True):
        yield relative(f"network, depth off: {name}", got, data[f"out_{name}"])
        yield Finding(f"network, depth off equals on: {name}", (got - same).abs().max().item(), 0.0)
    weight_B = torch.full((len(data["video"]),), GUIDANCE)
    for name, got in zip(cases.MODALITIES, guide(on, blind, weight_B), strict=True):
        yield relative(f"network, guidance 2: {name}", got, data[f"cfg2_out_{name}"])


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
    network, data, runs = cases.network_of(folder), load_file(path), cases.settings_of(path)["runs"]
    ends = cases.denoised(network, data, runs, network.encode_text)
    for name in runs:
        for modality in cases.MODALITIES:
            yield relative(f"loop {name}: {modality}", ends.get(f"{name}_{modality}"), data[f"{name}_{modality}"])


def training_loss(folder: Path) -> Iterator[Finding]:
    """Compare one training step with every random draw given."""
    network, data = cases.network_of(folder), load_file(folder / "training_loss.safetensors")
    got = cases.training_losses(network, data, network.encode_text)
    for name in ("video", "action", "proprio", "depth", "total"):
        item = "loss" if name == "total" else f"loss_{name}"
        yield relative(f"training loss: {name}", got[item].reshape(data[item].shape), data[item])


def vae(folder: Path) -> Iterator[Finding]:
    """Compare latents and reconstruction of the Wan2.2 VAE."""
    data, weights = load_file(folder / "vae22_forward.safetensors"), load_file(folder / "vae22_weights.safetensors")
    codec = vae_from_wan(weights, mean=data["mean"], std=data["std"])
    yield relative("vae: latents", codec.encode(data["video"]), data["latents"])
    yield relative("vae: reconstruction", codec.decode(data["latents"]), data["reconstruction"])


def text_encoder(folder: Path) -> Iterator[Finding]:
    """Compare umT5's output at every place of padded token ids, those behind the prompt too."""
    data, weights = load_file(folder / "t5_forward.safetensors"), load_file(folder / "t5_weights.safetensors")
    raw_BNW = encode_ids(umt5_from_wan(weights), data["ids"], data["mask"])
    yield relative("text encoder, all places", raw_BNW, data["out"])


def raw_text(folder: Path) -> Iterator[Finding]:
    """Compare the network on umT5's raw output with the reference network, which reads every place by itself.

    First our umT5 and network are compared with the file's raw output in the reference network. Then the same prompts
    and the empty one are padded to 512 places, of which most are equal and merged.
    """
    text, weights = load_file(folder / "t5_forward.safetensors"), load_file(folder / "t5_weights.safetensors")
    umt5, network, data = (
        umt5_from_wan(weights),
        cases.network_of(folder),
        load_file(folder / "dit_forward.safetensors"),
    )
    if text["out"].shape[2] != network.config.text_width:
        yield from _against_reference("the file's context", network, data, data["context"], data["context"])
        return
    ours = encode_ids(umt5, text["ids"], text["mask"])
    yield from _against_reference("prompts", network, data, ours, text["out"])
    ids, mask = (F.pad(text[name], [0, NUM_PLACES - text[name].shape[1]]) for name in ("ids", "mask"))
    empty = (torch.arange(NUM_PLACES) == 0).to(mask)[None]
    for name, padded in (("prompts", (ids, mask)), ("empty prompt", (empty, empty))):
        raw_BNW = encode_ids(umt5, *padded)
        yield from _against_reference(f"{name} at {NUM_PLACES} places", network, data, raw_BNW, raw_BNW)


def _against_reference(
    name: str, network: XwamNetwork, data: dict[str, Tensor], ours_BNW: Tensor, theirs_BNW: Tensor
) -> Iterator[Finding]:
    """Compare a pass of the network, which merges equal rows of its text, with one of the reference network."""
    network.config = replace(network.config, text_len=ours_BNW.shape[1])
    geometry = network.geometry(data["video"], data["actions"].shape[1], data["proprios"].shape[1])
    reference, prompt_of_B = ReferenceNetwork(network, geometry), torch.arange(len(data["video"])) % len(ours_BNW)
    got = cases.one_pass(network, data, network.encode_text(ours_BNW[prompt_of_B]), depth=True)
    expected = cases.one_pass(reference, data, reference.encode_text(theirs_BNW[prompt_of_B]), depth=True)
    for modality, one, two in zip(cases.MODALITIES, got, expected, strict=True):
        assert two is not None, "the depth branch is on"
        yield relative(f"network from raw text, {name}: {modality}", one, two)


def container(folder: Path) -> Iterator[Finding]:
    """Compare the released container with the same weights in their own files, by what they compute."""
    heads = cases.settings_of(folder / "dit_weights.safetensors")["config"]["num_heads"]
    bundle, plain = load_released(folder / "experiment", num_heads=heads), cases.network_of(folder)
    for name, weight in plain.state_dict().items():
        if not torch.equal(weight, bundle.network.state_dict()[name]):
            yield Finding(f"container: {name} differs", math.inf, 0.0)
    text, data = load_file(folder / "t5_forward.safetensors"), load_file(folder / "vae22_forward.safetensors")
    raw_BNW = encode_ids(bundle.text_encoder.model, text["ids"], text["mask"])  # type: ignore[attr-defined]
    yield relative("container: text encoder, all places", raw_BNW, text["out"])
    yield relative("container: vae latents", bundle.codec.encode(data["video"]), data["latents"])
    yield relative("container: vae reconstruction", bundle.codec.decode(data["latents"]), data["reconstruction"])
    forward = load_file(folder / "dit_forward.safetensors")
    text_len = forward["context"].shape[1]  # the container says 512, the file's prompts are shorter
    network = bundle.network
    network.config = replace(network.config, text_len=text_len)
    out = cases.one_pass(network, forward, network.encode_text(forward["context"]), depth=True)
    for name, tensor in zip(cases.MODALITIES, out, strict=True):
        yield relative(f"container: network {name}", tensor, forward[f"out_{name}"])


def frames(folder: Path) -> Iterator[Finding]:
    """Compare RoboTwin's frames of reference: its poses to the model's state, the model's deltas to its targets."""
    data, arms = np.load(folder / "robotwin_frames.npz"), ("left", "right")
    sim = np.concatenate([np.append(data[f"{arm}_endpose"], data[f"{arm}_gripper"]) for arm in arms])
    proprio = ROBOTWIN_AXES.model_from_sim(sim, arms)
    yield absolute("robotwin: state", torch.from_numpy(proprio), torch.from_numpy(data["proprio"]))
    states = ROBOTWIN_AXES.sim_from_model(accumulate(data["actions"], proprio, arms), arms)
    yield absolute("robotwin: targets", torch.from_numpy(states), torch.from_numpy(data["ee_targets"]))


def preprocessing(folder: Path) -> Iterator[Finding]:
    """Compare resizing and cropping of RGB and of depth images."""
    path = folder / "image_preprocessing.safetensors"
    data, settings = load_file(path), cases.settings_of(path)
    pipeline = ImagePipeline(
        env_hw_px=tuple(data["image"].shape[-2:]),  # type: ignore[arg-type]
        model_hw_px=tuple(settings["size_hw"]),
        crop_frac=float(settings["crop_ratio"]),
    )
    yield absolute("images: RGB", pipeline.to_model(data["image"]), data["resized_cropped"])
    yield absolute("images: depth", pipeline.to_model(data["image"], "nearest-exact"), data["depth_cropped"])


def data(folder: Path) -> Iterator[Finding]:
    """Compare normalised clips, their masks, and quantiles computed from the episodes."""
    for finding in xwam_data.comparisons(folder):
        yield finding._replace(item=f"data {finding.item}")


ITEMS: dict[str, tuple[Callable[[Path], Iterator[Finding]], tuple[str, ...]]] = {
    "network": (network_forward, ("dit_weights.safetensors", "dit_forward.safetensors")),
    "unipc": (unipc, ("unipc.safetensors",)),
    "training": (training_loss, ("dit_weights.safetensors", "training_loss.safetensors")),
    "vae": (vae, ("vae22_weights.safetensors", "vae22_forward.safetensors")),
    "text": (text_encoder, ("t5_weights.safetensors", "t5_forward.safetensors")),
    "raw text": (
        raw_text,
        (
            "t5_weights.safetensors",
            "t5_forward.safetensors",
            "dit_weights.safetensors",
            "dit_forward.safetensors",
        ),
    ),
    "container": (
        container,
        (
            "experiment/config.yaml",
            "experiment/checkpoints/last.ckpt/checkpoint/mp_rank_00_model_states.pt",
            "dit_weights.safetensors",
            "dit_forward.safetensors",
            "t5_forward.safetensors",
            "vae22_forward.safetensors",
        ),
    ),
    "data": (data, xwam_data.FILES),
    "frames": (frames, ("robotwin_frames.npz",)),
    "preprocessing": (preprocessing, ("image_preprocessing.safetensors",)),
    "loop": (async_sampler, ("dit_weights.safetensors", "async_sampler.safetensors")),
}
"""What is compared, and the files that it needs."""


def main(folder: Path, *, allow_absent: bool = False) -> int:
    """Print one line a comparison; return 0 if all of them are there and within tolerance.

    Args:
        folder: Where the files lie.
        allow_absent: Whether items whose files are missing are left out instead of counted as failed.
    """
    passed = failed = 0
    for name, (compare, files) in ITEMS.items():
        absent = [file for file in files if not (folder / file).exists()]
        if absent:
            print(f"ABSENT {name}: {folder} holds no {', '.join(absent)}")
            failed += not allow_absent
            continue
        for finding in examined(name, compare, folder):
            print(finding.line(), flush=True)
            passed, failed = passed + finding.passed, failed + (not finding.passed)
    print(f"{passed} of {passed + failed} within tolerance")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    raise SystemExit(from_command_line(main, sys.argv[1:], default_folder()))
