"""The stage that times the network at the released size, eager, compiled and graphed, next to the reference network.

In: random bfloat16 weights, made on the device. Out: milliseconds, launches, and the share of the measured matrix peak;
checks that a row of a pass does not depend on the others.
Read next: `passes.py` for company, graphs and launches; `xwam/serving/speed.py` for sizes, states and operation counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gpu_check.cases import MODALITIES, Pair
from gpu_check.machine import measured_peak
from gpu_check.parity import COARSE_LIMIT, root_mean_square
from gpu_check.passes import WIDTH, check_company, launches_of, ways_of
from gpu_check.running import Report
from gpu_check.timing import fastest_of, free_gib, peak_gib, reset_peak, seconds_of
from xwam.config import NetworkConfig, count_parameters
from xwam.flow.sampler import Denoiser, SamplerState, Schedule, advance, run, timesteps_of
from xwam.network.recorded import compile_blocks
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import Denoised, XwamNetwork
from xwam.serving.speed import SIZES, random_network, started, step_flops

FORMULA = (
    "operations of a step = sum over blocks of 2 tokens (6 width^2 + 2 width ffn_width) + 4 tokens width (keys + text "
    "tokens); a multiply and an add count two; embeddings and heads are not counted"
)
ACTION_STEPS = {"5b": 10, "nano": 2}
BATCHES = (1, 4, 16)
MOST_OF_A_CHUNK = 4
"""Largest batch at which a whole chunk of actions is timed, not a step alone."""

COMPILE_S = 45.0
"""Compiling is not started with fewer seconds left."""


def size_of(report: Report) -> str:
    """Return the size to time: the released one on a GPU, else nano."""
    return "5b" if report.settings.on_gpu and not report.settings.quick else "nano"


def needed_gib(config: NetworkConfig) -> float:
    """Return the memory to build and time a network: float32 weights, then bfloat16 ones, and 4 GiB for passes.

    Example:
        >>> from xwam.config import WAN22_5B
        >>> round(needed_gib(WAN22_5B))
        29
    """
    return 4 * sum(count_parameters(config)) / 2**30 + 4


@torch.inference_mode()
def model(report: Report) -> None:
    """Time a denoising step and a chunk of actions, at each batch size."""
    size, device = size_of(report), torch.device(report.settings.device)
    config, geometry = SIZES[size]
    free = free_gib(device)
    report.fact(size=size, parameters=sum(count_parameters(config)), type="bfloat16", flops_formula=FORMULA)
    if free is not None and free < needed_gib(config):
        report.left_out(f"the {size} network", f"it needs {needed_gib(config):.0f} GiB, {free:.0f} GiB are free")
        return
    reset_peak(device)
    network = random_network(config, torch.bfloat16, device)
    reference = ReferenceNetwork(network, geometry)
    _check(report, "ours and reference", _pass(report, network, depth=True), _pass(report, reference, depth=True))
    for compiled in (False, True):
        seconds = _compiled(report, network) if compiled else 0.0
        if seconds is None:
            break
        ways = ways_of(report, network, compiled=compiled)
        for way, model in ways.items():
            check_company(report, way, model, [_states(report, network, 1, seed=seed) for seed in range(WIDTH)])
        for batch in BATCHES[:1] if report.settings.quick else BATCHES:
            if batch > 1 and report.left_s() < 1.5 * seconds:  # another batch size is compiled again
                report.left_out(f"compiled blocks at batch {batch}", f"{report.left_s():.0f} s are left of this stage")
                break
            for way, model in ways.items():
                _rows(report, way, model, reference, batch)
    report.fact(peak_memory_gib=peak_gib(device))


def _states(report: Report, model: Any, batch: int, *, seed: int = 0) -> SamplerState:
    size = size_of(report)
    config, geometry = SIZES[size]
    steps = ACTION_STEPS[size]
    torch.manual_seed(seed)
    return started(model, config, geometry, Schedule(num_video_steps=max(steps, 10), num_action_steps=steps), batch)


def _pass(report: Report, model: Any, *, depth: bool) -> Denoised:
    """Return the output of one pass over the first state."""
    state = _states(report, model, 1)
    video, action, proprio = state.video.x, state.action.x, state.proprio.x
    t_video, t_action = (torch.tensor([level], device=video.device) for level in timesteps_of(state))
    times = model.timesteps(t_video, t_action, model.geometry(video, action.shape[1], proprio.shape[1]))
    return model(video, action, proprio, times, state.text, depth=depth)  # type: ignore[no-any-return]


def _check(report: Report, title: str, found: Denoised, expected: Denoised) -> None:
    """Check every output of a pass against that of another one."""
    for name, ours, theirs in zip(MODALITIES, found, expected, strict=True):
        if ours is not None and theirs is not None:
            error = root_mean_square(Pair(name, ours, theirs.cpu()))
            report.check(f"one pass with random weights, {title}: {name}", error, COARSE_LIMIT)


def _compiled(report: Report, network: XwamNetwork) -> float | None:
    """Compile the blocks and check one pass; return the seconds, or None, with the reason in the report."""
    if report.settings.quick:
        report.left_out("compiled blocks", "--quick")
        return None
    if report.left_s() < COMPILE_S:
        report.left_out("compiled blocks", f"{report.left_s():.0f} s are left of this stage")
        return None
    before = _pass(report, network, depth=False)
    compile_blocks(network)  # the reference network calls a block's parts and never the block
    seconds = seconds_of(lambda: _pass(report, network, depth=False), network.device)
    report.fact(seconds_to_compile=seconds)
    _check(report, "compiled and eager", _pass(report, network, depth=False), before)
    return seconds


def _rows(report: Report, way: str, model: Denoiser, reference: ReferenceNetwork, batch: int) -> None:
    """Add the rows of one batch size: a step, a step with depth, the chunk of actions."""
    config, geometry = SIZES[size_of(report)]
    ours, theirs = (_states(report, each, batch) for each in (reference.network, reference))
    steps, device = ours.schedule.num_action_steps, reference.network.device
    peak, num_text = measured_peak(report, torch.bfloat16), ours.text.num_tokens
    works: list[tuple[str, float, Callable[[Any, SamplerState], Any]]] = [
        ("step", 1, lambda model, state: advance(model, [state])),
    ]
    if batch <= MOST_OF_A_CHUNK:
        run_chunk = partial(run, stop_after_actions=True, depth=False)
        works.append(("chunk of actions", steps, run_chunk))
    if way == "eager":
        works.insert(1, ("step with depth", 1, lambda model, state: advance(model, [state], depth=True)))
    for name, passes, work in works:
        if report.left_s() < 5:
            report.left_out(f"{name}, batch {batch}, {way}", "the time is over")
            continue
        pair = [partial(work, model, ours), partial(work, reference, theirs)]
        seconds, reference_s = fastest_of(pair, device, 1 if report.settings.quick else 3)
        flops = batch * passes * step_flops(config, geometry, num_text=num_text, depth="depth" in name)
        report.row(
            work=name,
            passes=way,
            batch=batch,
            num_passes=passes,
            text_tokens=num_text,
            ms=1e3 * seconds,
            reference_ms=1e3 * reference_s,
            ratio=seconds / reference_s,
            launches=launches_of(report, pair[0]) if passes == 1 else None,
            tflops=flops / seconds / 1e12,
            share_of_peak=None if peak is None else flops / seconds / peak,
        )
