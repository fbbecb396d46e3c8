"""The stage that takes training steps as the trainer does: float32 weights, bfloat16 passes, AdamW.

In: random weights of the largest network of the released width that fits into memory. Out: seconds a step, memory.
Read next: `xwam/training/objective.py`, which computes the loss.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from gpu_check.machine import measured_peak
from gpu_check.model import size_of
from gpu_check.running import Report
from gpu_check.timing import fastest, free_gib, peak_gib, reset_peak
from xwam.config import Geometry, NetworkConfig, count_parameters
from xwam.flow.losses import Batch, Noise
from xwam.flow.noise import draw_levels
from xwam.network.transformer import XwamNetwork
from xwam.serving.speed import SIZES, random_text, step_flops
from xwam.training.objective import XwamObjective
from xwam.training.optim import optimizers_of

RECIPE = SimpleNamespace(
    train_only=(),
    weight_action=1.0,
    weight_proprio=1.0,
    weight_depth=1.0,
    weight_dct=0.0,
    checkpointing=True,
    compile=False,
    optimizer="adamw",
    learning_rate=3e-5,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    micro_batch=4,
)
"""What a step needs of `FINETUNING` in `xwam/training/recipes.py`, which itself needs pydantic."""

BYTES_PER_WEIGHT = 20
"""float32: weight, gradient, two states of AdamW, and the temporary of its update, for all weights together."""

RESERVED_GIB = 6.0
"""Activations with recomputation, the bfloat16 copies of autocast, and what the allocator cannot use."""


def needed_gib(config: NetworkConfig) -> float:
    """Return the memory of training a network.

    Example:
        >>> from xwam.config import WAN22_5B
        >>> round(needed_gib(WAN22_5B))
        130
    """
    return BYTES_PER_WEIGHT * sum(count_parameters(config)) / 2**30 + RESERVED_GIB


def fitting(config: NetworkConfig, gib: float) -> Iterator[NetworkConfig]:
    """Yield the network with all, then with ever fewer blocks (a third of them doubled for depth), where it fits."""
    for num_blocks in range(config.num_blocks, 0, -3):
        smaller = replace(config, num_blocks=num_blocks, num_depth_blocks=num_blocks * config.num_depth_blocks // 30)
        if num_blocks == config.num_blocks:
            smaller = config
        if needed_gib(smaller) <= gib:
            yield smaller


def training(report: Report) -> None:
    """Take a few steps; a network that does not fit after all gives way to a smaller one."""
    size, device = size_of(report), torch.device(report.settings.device)
    config, geometry = SIZES[size]
    free = free_gib(device)
    report.fact(size=size, needed_gib=needed_gib(config), free_gib=free)
    for tried in fitting(config, 1e9 if free is None else free):
        try:
            _steps(report, tried, geometry)
            return
        except torch.OutOfMemoryError:
            report.left_out(f"{tried.num_blocks} blocks", "the memory was not enough")
        gc.collect()
        torch.cuda.empty_cache()
    raise RuntimeError("no network of this width fits into the memory")


def _steps(report: Report, config: NetworkConfig, geometry: Geometry) -> None:
    device, recipe = torch.device(report.settings.device), RECIPE
    batch_size = recipe.micro_batch if report.settings.on_gpu else 1
    reset_peak(device)
    torch.manual_seed(0)
    objective = XwamObjective(_network(config, device), recipe)  # type: ignore[arg-type]
    optimizers = optimizers_of(objective, recipe)  # type: ignore[arg-type]
    batch, draws = _batch(config, geometry, batch_size, device)
    before = objective.network.head.head.weight.detach().clone()
    values: list[dict[str, float]] = []

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            found = objective(batch, draws)
        found["total"].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        values.append({name: value.item() for name, value in found.items()})

    seconds = fastest(step, device, 1 if report.settings.quick else 2)
    report.check("losses that are not finite", float(sum(not abs(v) < 1e9 for v in values[-1].values())), 0.0)
    report.check("weights of the head unchanged", float(torch.equal(before, objective.network.head.head.weight)), 0.0)
    peak, num_text = measured_peak(report, torch.bfloat16), draws.text.rows_BMW.shape[1]
    flops = 3 * batch_size * step_flops(config, geometry, num_text=num_text, depth=True)
    report.fact(
        blocks=config.num_blocks,
        depth_blocks=config.num_depth_blocks,
        parameters=sum(count_parameters(config)),
        samples_per_step=batch_size,
        ms_per_step=1e3 * seconds,
        losses=values[-1],
        share_of_peak=None if peak is None else flops / seconds / peak,
        flops_formula="3 times those of a pass with depth; the passes that are computed again are not counted",
        peak_memory_gib=peak_gib(device),
    )


def _network(config: NetworkConfig, device: torch.device) -> XwamNetwork:
    with torch.device("meta"):
        network = XwamNetwork(config)
    network = network.to_empty(device=device)
    for weight in network.parameters():
        weight.data.normal_(0, 0.02)
    return network


def _batch(config: NetworkConfig, geometry: Geometry, count: int, device: torch.device) -> tuple[Batch, Any]:
    """Return random samples and their random draws."""
    (high, wide), g = config.patch_hw, geometry
    video = (count, config.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    action, proprio = (count, g.num_actions, config.action_dim), (count, g.num_proprios, config.proprio_dim)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device)

    batch = Batch(
        video_BCTVHW=drawn(*video),
        depth_BCTVHW=drawn(*video),
        action_BKA=drawn(*action),
        proprio_BPS=drawn(*proprio),
        action_mask_BKA=torch.ones(action, device=device),
        proprio_mask_BPS=torch.ones(proprio, device=device),
        executed_BKA=drawn(*action),
    )
    levels = draw_levels(count, clean_frac=0.0)
    draws = SimpleNamespace(
        noise=Noise(drawn(*video), drawn(*action), drawn(*proprio)),
        levels=type(levels)(*(part.to(device) for part in levels)),
        text=random_text(config, count, device),
        num_clean=(),
    )
    return batch, draws
