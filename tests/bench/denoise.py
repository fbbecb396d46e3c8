"""Figures `denoise_step_depth_*`: a denoising step against the reference network; and `async_speedup`.

In: one set of weights, float32, one request of the released number of tokens. Out: these figures.
Read next: `xwam/network/transformer.py` and `xwam/network/layers.py`, which are measured; `xwam/network/reference.py`,
which they are compared with.

Either way with depth is timed twice: with a prompt of 12 words, the length of a task's sentence, of whose padding our
network reads one token, and (`..._full_prompt`) with one that fills all 512 tokens, of which nothing can be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.bench.figure import Figure, compare
from xwam.checkpoints.fresh import fresh_network
from xwam.config import RELEASE_GEOMETRY, NetworkConfig
from xwam.flow.sampler import SamplerState, Schedule, run
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import XwamNetwork
from xwam.serving.speed import started

CONFIG = NetworkConfig(width=512, ffn_width=2048, num_heads=4, num_blocks=12, num_depth_blocks=4)
GEOMETRY = RELEASE_GEOMETRY
STEP_ROUNDS = 15
PROMPTS = {"": 12, "_full_prompt": CONFIG.text_len}


def inputs_of(num_words: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return video, actions, states and a prompt of 512 tokens of which some are words."""
    generator, g = torch.Generator().manual_seed(seed), GEOMETRY
    high, wide = CONFIG.patch_hw
    shape = (1, CONFIG.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    text = torch.zeros(1, CONFIG.text_len, CONFIG.text_width)
    text[:, :num_words] = torch.randn(1, num_words, CONFIG.text_width, generator=generator)
    sizes = (shape, (1, g.num_actions, CONFIG.action_dim), (1, g.num_proprios, CONFIG.proprio_dim))
    video, action, proprio = (torch.randn(size, generator=generator) for size in sizes)
    return video, action, proprio, text


@torch.inference_mode()
def step_figure(network: XwamNetwork, name: str, *, depth: bool, num_words: int) -> Figure:
    """Return our time for one step over that of the reference network, after checking that both agree."""
    *inputs, prompt = inputs_of(num_words)
    times = network.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), GEOMETRY)
    context, reading = network.with_depth_text(network.encode_text(prompt)), ReferenceNetwork(network, GEOMETRY)
    words = reading.encode_text(prompt)

    def ours() -> list[Tensor]:
        return [part for part in network(*inputs, times, context, depth=depth) if part is not None]

    def reference() -> list[Tensor]:
        video, action, proprio = inputs
        return [part for part in reading(video, action, proprio, times, words, depth=depth) if part is not None]

    for one, two in zip(ours(), reference(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
    figure = compare(name, ("ours", ours), ("reference network", reference), goal="<= 0.85", rounds=STEP_ROUNDS)
    return replace(figure, unit=f"{figure.unit}, prompt of {num_words} words in {CONFIG.text_len} tokens")


@torch.inference_mode()
def async_figure(network: XwamNetwork) -> Figure:
    """Return how much sooner actions are clean with 10 than with 50 of 50 steps; the paper has 4.5 for 5 of 25."""

    def until_actions(num_action_steps: int) -> Callable[[], SamplerState]:
        schedule = Schedule(num_video_steps=50, num_action_steps=num_action_steps)
        state = started(network, CONFIG, GEOMETRY, schedule, batch=1)
        return lambda: run(network, state, stop_after_actions=True, depth=False)

    synchronous, asynchronous = ("synchronous 50", until_actions(50)), ("asynchronous 10 of 50", until_actions(10))
    return compare("async_speedup", synchronous, asynchronous, goal=">= 4.5", rounds=1)


def figures() -> list[Figure]:
    """Time one step with the depth branch off and on, then the way to clean actions, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = fresh_network(CONFIG, seed=0)
        steps = [
            step_figure(network, f"denoise_step_depth_{'on' if depth else 'off'}{suffix}", depth=depth, num_words=words)
            for suffix, words in PROMPTS.items()
            for depth in (False, True)
        ]
        return [*steps, async_figure(network)]
    finally:
        torch.set_num_threads(threads)
