"""Figure `dreamzero_cache`: an action of nano DreamZero as it is served, over its own loop without any cache.

In: nano with random weights, float32, a window with three observed blocks. Out: the figure.
Read next: `baselines/dreamzero/sampler.py`, which is timed; `tests/doubles/dreamzero.py`, the pass without a cache.

Both sides encode the last observed frames, denoise the same noise in as many steps, and end with the same form of
actions. The loop without a cache runs every pass over the whole window, clean and noisy, with the mask of training.
Step caching follows the cosine of the velocities, which turn little in a network with random weights; the figure
`dreamzero_cache_all_passes` times the cache of frames alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from baselines.dreamzero.engine import DreamZeroEngine
from baselines.dreamzero.models import NANO
from baselines.dreamzero.sampler import BlockSchedule
from baselines.dreamzero.window import Window
from tests.bench.denoise import on_one_thread
from tests.bench.figure import Figure, compare
from tests.doubles.dreamzero import flows_without_cache
from xwam.checkpoints.bundle import Bundle
from xwam.checkpoints.fresh import fresh_bundle
from xwam.flow.noise import draw_noise
from xwam.flow.step_cache import StepCache
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step

ROUNDS = 9
INSTRUCTION = "lift the cube"


def engine_of(step_cache: StepCache | None) -> DreamZeroEngine:
    """Return the engine of nano with random weights."""
    steps = NANO.num_video_steps
    schedule = BlockSchedule(num_video_steps=steps, num_action_steps=steps, step_cache=step_cache)
    return DreamZeroEngine(_bundle(), schedule)


@cache
def _bundle() -> Bundle:
    return fresh_bundle(NANO, seed=0)


def images(seed: int, count: int) -> np.ndarray:
    """Return images of the three cameras."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, *NANO.image_hw_px, 3), np.uint8)


def observed(engine: DreamZeroEngine) -> Window:
    """Return a window with two observed blocks; the next request brings the third."""
    window = engine.windows.start(images(0, 1)[0], INSTRUCTION)
    for block in (1, 2):
        window = engine.windows.extend(window, images(block, 8))
    return window


def served(engine: DreamZeroEngine, proprio: np.ndarray, *, count: int) -> Callable[[], np.ndarray]:
    """Return a request as the policy answers it, which can be asked `count` times, each time by another episode.

    The cache of the frames before the last block is there, as an episode keeps it until its next request.
    """
    windows = [observed(engine) for _ in range(count)]
    for window in windows:
        engine.windows.context(window)
    episodes = iter(windows)
    return lambda: engine.act(engine.begin(engine.windows.extend(next(episodes), images(3, 8)), proprio, seed=1))[0]


def uncached(engine: DreamZeroEngine, window: Window, proprio: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the same request without a cache: every pass goes over the whole window."""
    network, steps = engine.network, NANO.num_video_steps
    grid, text = unipc_grid(steps), engine.windows.context(window).text

    @torch.inference_mode()
    def act() -> np.ndarray:
        frames = engine.windows.extend(window, images(3, 8)).latents_BCTVHW
        noise = draw_noise(1, (1, *_block_shape(engine)), (1, network.config.actions_per_block, 14))
        video, action = (UniPCState(x=each) for each in noise)
        state: Tensor = engine.numbers.state(proprio)[:, None]
        for t in grid.timesteps:
            t_B = torch.tensor([float(t)])
            flows = flows_without_cache(network, frames, video.x, action.x, state, t_B, t_B, text)
            video, action = unipc_step(grid, video, flows.video_BCTVHW), unipc_step(grid, action, flows.action_BKA)
        return engine.numbers.commands(action.x[0], proprio)

    return act


def _block_shape(engine: DreamZeroEngine) -> tuple[int, ...]:
    channels, _, *cells = NANO.latent_shape
    return channels, engine.network.config.latents_per_block, *cells


@on_one_thread
def cache_figure(name: str, *, step_cache: StepCache | None, goal: str) -> Figure:
    """Return the time of an action as it is served over that without a cache, after checking that both agree."""
    proprio = np.array([0.5, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0, 1.0] + [0.0] * 8, np.float32)
    engine, every_pass = engine_of(step_cache), engine_of(None)
    loop = uncached(every_pass, observed(every_pass), proprio)
    np.testing.assert_allclose(served(every_pass, proprio, count=1)(), loop(), atol=1e-3)
    figure = compare(
        name,
        ("served", served(engine, proprio, count=ROUNDS + 1)),
        ("without a cache", loop),
        goal=goal,
        rounds=ROUNDS,
        clock=time.process_time,
    )
    return replace(figure, unit=f"{figure.unit}, {NANO.num_video_steps} steps, three observed blocks")


FIGURES: dict[str, Callable[[], Figure]] = {
    "dreamzero_cache": partial(cache_figure, "dreamzero_cache", step_cache=StepCache(), goal="<= 0.5"),
    "dreamzero_cache_all_passes": partial(cache_figure, "dreamzero_cache_all_passes", step_cache=None, goal="<= 0.5"),
}
