"""Figures `denoise_step_*`: a denoising step against the reference network, or with less text; and `async_speedup`.

In: one set of weights, one request of the released number of tokens. Out: these figures.
Read next: `xwam/network/transformer.py` and `xwam/network/layers.py`, which are measured; `xwam/network/reference.py`,
which they are compared with.

Either way with depth is timed twice: with a prompt of 12 tokens, the length of a task's sentence, behind which many
text places are equal, as umT5 gives them; and (`..._full_prompt`) with one that fills all 512 places, none equal.
`denoise_step_prompt` divides the time of the first by that of the same prompt with zeros behind it, which version 0.2.0
read in place of umT5's output. All compute in float32, except for `denoise_step_bf16`: both sides in bfloat16 on a CPU
that multiplies it, without depth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial, wraps
from typing import Any

import torch
from torch import Tensor

from tests.bench.figure import Figure, NotMeasurable, compare
from xwam.checkpoints.fresh import fresh_network
from xwam.config import RELEASE_GEOMETRY, NetworkConfig
from xwam.flow.sampler import SamplerState, Schedule, run
from xwam.network.processor import multiplies_bfloat16
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import Timesteps, XwamNetwork
from xwam.serving.speed import started
from xwam.text.umt5 import padding_counts

CONFIG = NetworkConfig(width=512, ffn_width=2048, num_heads=4, num_blocks=12, num_depth_blocks=4)
GEOMETRY = RELEASE_GEOMETRY
STEP_ROUNDS = 15
BFLOAT16_ERROR = 0.05
"""Largest root mean square difference of both sides, in standard deviations."""

PROMPTS = {"": 12, "_full_prompt": CONFIG.text_len}


def on_one_thread(measure: Callable[..., Figure]) -> Callable[..., Figure]:
    """Return a measurement that uses one thread, and as many as before afterwards."""

    @wraps(measure)
    def measured(*arguments: Any, **named: Any) -> Figure:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return measure(*arguments, **named)
        finally:
            torch.set_num_threads(threads)

    return measured


def inputs_of(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return video, actions and states."""
    generator, g = torch.Generator().manual_seed(seed), GEOMETRY
    high, wide = CONFIG.patch_hw
    shape = (1, CONFIG.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    sizes = (shape, (1, g.num_actions, CONFIG.action_dim), (1, g.num_proprios, CONFIG.proprio_dim))
    video, action, proprio = (torch.randn(size, generator=generator) for size in sizes)
    return video, action, proprio


def prompt_of(num_words: int, *, padded_with_zeros: bool = False) -> Tensor:
    """Return the rows of all 512 text places of a prompt; behind its words, as many are equal as umT5 gives."""
    counts = [1] * num_words + padding_counts(num_words, CONFIG.text_len)
    rows = torch.randn(len(counts), CONFIG.text_width, generator=torch.Generator().manual_seed(1))
    if padded_with_zeros:
        rows[num_words:] = 0
    return rows.repeat_interleave(torch.tensor(counts), 0)[None]


@cache
def network(kind: torch.dtype = torch.float32) -> XwamNetwork:
    """Return the network that all figures time."""
    return fresh_network(CONFIG, seed=0).cast(kind).join_projections()


def a_step(prompt: Tensor, *, depth: bool, kind: torch.dtype = torch.float32) -> Callable[[], list[Tensor]]:
    """Return one step of our network."""
    model, inputs = network(kind), inputs_of()
    times, context = _times(), model.with_depth_text(model.encode_text(prompt))
    return lambda: [part for part in model(*inputs, times, context, depth=depth) if part is not None]


def _times() -> Timesteps:
    return network().timesteps(torch.tensor([700.0]), torch.tensor([300.0]), GEOMETRY)


@on_one_thread
@torch.inference_mode()
def step_figure(
    name: str, *, depth: bool, num_words: int, kind: torch.dtype = torch.float32, goal: str = "<= 0.85"
) -> Figure:
    """Return our time for one step over that of the reference network, after checking that both agree."""
    if kind == torch.bfloat16 and not multiplies_bfloat16():
        raise NotMeasurable("this CPU does not multiply bfloat16 (AVX512-BF16)")
    inputs, prompt, times = inputs_of(), prompt_of(num_words), _times()
    reading = ReferenceNetwork(network(kind), GEOMETRY)
    ours, words = a_step(prompt, depth=depth, kind=kind), reading.encode_text(prompt)

    def reference() -> list[Tensor]:
        return [part for part in reading(*inputs, times, words, depth=depth) if part is not None]

    for one, two in zip(ours(), reference(), strict=True):
        if kind == torch.float32:
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
        assert (one - two).square().mean().sqrt() < BFLOAT16_ERROR * two.std(), "both sides differ"
    figure = compare(
        name,
        ("ours", ours),
        ("reference network", reference),
        goal=goal,
        rounds=STEP_ROUNDS,
        clock=time.process_time,
    )
    return replace(figure, unit=f"{figure.unit}, prompt of {num_words} tokens in {CONFIG.text_len} places")


@on_one_thread
@torch.inference_mode()
def prompt_figure() -> Figure:
    """Return the time of one step with umT5's output at all places over that with zeros behind the prompt."""
    raw, zeros = (a_step(prompt_of(12, padded_with_zeros=zeros), depth=True) for zeros in (False, True))
    sides = ("umT5's output, equal rows merged", raw), ("zeros behind the prompt", zeros)
    return compare("denoise_step_prompt", *sides, goal="<= 1.03", rounds=STEP_ROUNDS, clock=time.process_time)


@on_one_thread
@torch.inference_mode()
def async_figure() -> Figure:
    """Return how much sooner actions are clean with 10 than with 50 of 50 steps; the paper has 4.5 for 5 of 25."""

    def until_actions(num_action_steps: int) -> Callable[[], SamplerState]:
        schedule = Schedule(num_video_steps=50, num_action_steps=num_action_steps)
        state = started(network(), CONFIG, GEOMETRY, schedule, batch=1)
        return lambda: run(network(), state, stop_after_actions=True, depth=False)

    synchronous, asynchronous = ("synchronous 50", until_actions(50)), ("asynchronous 10 of 50", until_actions(10))
    return compare("async_speedup", synchronous, asynchronous, goal=">= 4.5", rounds=1)


FIGURES: dict[str, Callable[[], Figure]] = {
    f"denoise_step_depth_{'on' if depth else 'off'}{suffix}": partial(
        step_figure, f"denoise_step_depth_{'on' if depth else 'off'}{suffix}", depth=depth, num_words=num_words
    )
    for suffix, num_words in PROMPTS.items()
    for depth in (False, True)
}
FIGURES["denoise_step_bf16"] = partial(
    step_figure, "denoise_step_bf16", depth=False, num_words=PROMPTS[""], kind=torch.bfloat16, goal="<= 0.55"
)
FIGURES |= {"denoise_step_prompt": prompt_figure, "async_speedup": async_figure}
