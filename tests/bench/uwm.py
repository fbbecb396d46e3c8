"""Figures `uwm_action_*`: an action of UWM over one of X-WAM, with the same trunk and the same number of passes.

In: nano with random weights, float32. Out: the figures, of the joint and of the marginal policy.
Read next: `baselines/uwm/engine.py` and `xwam/serving/engine.py`, which are timed.

Both sides encode the same images, denoise the same noise and end with commands of the bench. Both networks have the
trunk of X-WAM's nano: its depth branch, which UWM replaces by further blocks at equal parameters, does not run while
X-WAM denoises actions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch

from baselines.uwm.engine import UwmEngine
from baselines.uwm.models import NANO
from tests.bench.denoise import on_one_thread
from tests.bench.figure import Figure, compare
from xwam.checkpoints.fresh import fresh_bundle
from xwam.config import NANO as XWAM_NANO
from xwam.flow.sampler import Schedule
from xwam.serving.engine import Engine
from xwam.serving.seen import Seen

ROUNDS = 15
STEPS = 10


def seen() -> Seen:
    """Return images of noise, and a state."""
    rgb = np.random.default_rng(0).integers(0, 256, (3, *NANO.image_hw_px, 3), np.uint8)
    proprio = np.array([0.5, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0, 1.0] + [0.0] * 8, np.float32)
    return Seen(rgb, proprio, "lift the cube")


@cache
def engines() -> tuple[Callable[[str], UwmEngine], Engine]:
    """Return UWM by use, and X-WAM whose video has as many passes again, so that depth runs after the actions."""
    trunk = replace(NANO, network=replace(NANO.network, num_blocks=XWAM_NANO.network.num_blocks))
    ours, theirs = fresh_bundle(trunk, seed=0), fresh_bundle(XWAM_NANO, seed=0)
    schedule = Schedule(num_video_steps=2 * STEPS, num_action_steps=STEPS)
    return lambda use: UwmEngine(ours, use=use, num_steps=STEPS), Engine(theirs, schedule)


@on_one_thread
@torch.inference_mode()
def action_figure(name: str, *, use: str) -> Figure:
    """Return the time of an action of UWM over that of X-WAM."""
    of_use, xwam = engines()
    uwm, request = of_use(use), seen()
    figure = compare(
        name,
        ("UWM", lambda: uwm.act(uwm.begin(request, seed=1))[0]),
        ("X-WAM", lambda: xwam.act(xwam.begin(request, seed=1))[0]),
        goal="<= 1.05",
        rounds=ROUNDS,
        clock=time.process_time,
    )
    return replace(figure, unit=f"{figure.unit}, the same trunk, {STEPS} passes")


FIGURES: dict[str, Callable[[], Figure]] = {
    "uwm_action_joint": partial(action_figure, "uwm_action_joint", use="joint"),
    "uwm_action_marginal": partial(action_figure, "uwm_action_marginal", use="policy"),
}
