"""Passes of the network in company, recorded as CUDA graphs, and counted by kernel launches; part of stage `model`.

In: a network. Out: checks that a row does not depend on the others of its pass, to the bit; kernel launches.
Read next: `model.py`, which calls it; `xwam/network/recorded.py` for compiled and recorded passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from gpu_check.running import Report
from xwam.flow.sampler import Denoiser, SamplerState, advance
from xwam.flow.unipc import UniPCState
from xwam.network.recorded import RecordedNetwork
from xwam.network.transformer import XwamNetwork

WIDTH = 4
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
"""Beginnings of the names of calls that give the device work."""


def ways_of(report: Report, network: XwamNetwork, *, compiled: bool) -> dict[str, Denoiser]:
    """Return how passes can be computed here, by name."""
    name = "compiled" if compiled else "eager"
    if not report.settings.on_gpu:
        report.left_out(f"{name} passes as CUDA graphs", "they need a GPU")
        return {name: network}
    return {name: network, f"{name}, graphed": RecordedNetwork(network)}


def check_company(report: Report, way: str, model: Denoiser, states: Sequence[SamplerState]) -> None:
    """Check that a row of a pass of fixed width has the same bits in every slot and with any neighbours.

    Args:
        report: Gets the check.
        way: How the pass is computed.
        model: What computes it.
        states: As many as a pass has rows, with different noise; the others are also replaced by not-a-number.
    """
    expected, different = advance(model, states)[0], 0
    others = [*states[1:-1], _poisoned(states[-1])]
    for slot in range(len(states)):
        rows = [*others[:slot], states[0], *others[slot:]]
        found = advance(model, rows)[slot]
        for one, two in ((found.video.x, expected.video.x), (found.action.x, expected.action.x)):
            different += int((one != two).sum())
    name = f"width {len(states)}, {way}: numbers of a row that change with its company"
    report.check(name, float(different), 0.0)


def _poisoned(state: SamplerState) -> SamplerState:
    """Return a state whose noise is not a number."""

    def not_numbers(part: UniPCState) -> UniPCState:
        return replace(part, x=torch.full_like(part.x, float("nan")))

    return replace(state, video=not_numbers(state.video), action=not_numbers(state.action))


def launches_of(report: Report, work: Callable[[], Any]) -> int | None:
    """Return how many kernels, copies and graphs some work launches; None on a CPU, which launches none."""
    if not report.settings.on_gpu:
        return None
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in profiler.key_averages() if event.key.startswith(LAUNCHES))
