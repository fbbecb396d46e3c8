"""Checks of a policy's replies: shapes, types, ranges, and what they must not depend on.

In: a loaded policy, requests of noise. Out: nothing, or an AssertionError with the promise that is not kept.
Read next: `policies.py`, which runs them; `evalkit/contracts/types.py`, which states shapes and units.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.policy import Policy, PolicyPlugin
from evalkit.contracts.spec import (
    EE_POSE_BASE,
    GRIPPER_OVERSHOOT,
    JOINT_POSITION,
    LARGEST_OSC,
    OSC_DELTA_BASE,
    OSC_STEP_M,
    OSC_STEP_RAD,
    EnvSpec,
    PolicySpec,
    check,
    check_actions,
)
from evalkit.contracts.types import (
    ACTION_DIM,
    ARM_ACTION,
    ARM_PROPRIO,
    GRIPPER,
    PROPRIO_DIM,
    QUAT_WXYZ,
    ROTVEC_RAD,
    TRANSLATION,
    PolicyReply,
    PolicyRequest,
    Prediction,
)
from evalkit.testing.requests import ask, env_for, noise_request
from evalkit.testing.suite import Doubt

FRAMEWORKS = ("torch", "jax", "tensorflow", "transformers", "diffusers")
"""Packages that the import of a plugin must not load: `evalkit list` imports every plugin."""

FARTHEST_M = 20.0
"""Median depth, and largest coordinate of an action, that no table-top scene has; larger ones are often millimetres."""


def load_checked_policy(plugin: PolicyPlugin, config: Any = None) -> Policy:
    """Return the policy; its spec must be the one that was planned with, its provenance must be text."""
    config = plugin.config_type() if config is None else config
    policy = plugins.make_policy(plugin, config)
    assert policy.spec == plugin.spec(config), "the loaded policy must have the spec that the plugin states"
    for name, value in plugin.provenance(config).items():
        assert isinstance(value, str), f"provenance '{name}' must be text"
    return policy


def frameworks_of_import(plugin: PolicyPlugin) -> list[str]:
    """Return the frameworks that a fresh interpreter has loaded once it has imported a plugin and read its spec."""
    kind = type(plugin)
    code = (
        f"import sys; from evalkit.contracts.plugins import resolve; plugin = resolve('{kind.__module__}:"
        f"{kind.__qualname__}')(); plugin.spec(plugin.config_type()); "
        f"print(*[name for name in {FRAMEWORKS} if name in sys.modules])"
    )
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert done.returncode == 0, f"a fresh interpreter cannot import the plugin and read its spec: {last}"
    return done.stdout.split()


def check_replies(policy: Policy) -> None:
    """Check that actions and predictions have the shapes, types and ranges that the spec states."""
    spec = policy.spec
    env = env_for(spec)
    check(env, spec)
    (reply,) = ask(policy, noise_request(spec, 0, 0))
    check_acts(reply.actions, env, spec)
    assert (reply.prediction is not None) == bool(spec.predicts), "predictions must come exactly if the spec has them"
    if reply.prediction is None:
        return
    check_prediction(reply.prediction(), spec, num_frames=spec.num_future_frames)
    (reply,) = ask(policy, replace(noise_request(spec, 0, 0), num_predicted_frames=1))
    assert reply.prediction is not None, "a prediction of one frame was requested, but there is none"
    check_prediction(reply.prediction(), spec, num_frames=1)


def check_acts(actions: np.ndarray, env: EnvSpec, spec: PolicySpec) -> None:
    """Check that actions have the shape, type and arms that a run accepts; the message names no env, as none runs."""
    try:
        check_actions(actions, env, spec)
    except EpisodeFault as fault:
        raise AssertionError(str(fault).removeprefix(f"{env.env_id}, ")) from fault


def check_prediction(prediction: Prediction, spec: PolicySpec, *, num_frames: int) -> None:
    """Check that a prediction has the number of frames that was requested, and what the spec states."""
    env = env_for(spec)
    frames, views = num_frames, len(env.cameras)
    assert prediction.rgb.shape == (frames, views, *env.image_hw_px, 3), f"predicted RGB is {prediction.rgb.shape}"
    assert prediction.rgb.dtype == np.uint8, f"predicted RGB is {prediction.rgb.dtype}, expected uint8"
    if "depth" in spec.predicts:
        assert prediction.depth is not None, "the spec predicts depth, but there is none"
        assert prediction.depth.shape == (frames, views, *env.image_hw_px), f"depth is {prediction.depth.shape}"
        assert prediction.depth.dtype == np.float32, f"depth is {prediction.depth.dtype}, expected float32"
        assert np.isfinite(prediction.depth).all(), "predicted depth must be finite"
    if "proprio" in spec.predicts:
        assert prediction.proprio is not None, "the spec predicts states, but there are none"
        assert prediction.proprio.shape == (frames, PROPRIO_DIM), f"states are {prediction.proprio.shape}"
        for arm in env.arms:
            norms = np.linalg.norm(prediction.proprio[:, ARM_PROPRIO[arm]][:, QUAT_WXYZ], axis=1)
            assert np.abs(norms - 1).max() < 1e-4, f"predicted quaternions must be unit, lengths are {span(norms)}"


class Answer(NamedTuple):
    """A reply with its prediction computed."""

    actions: np.ndarray
    future: Prediction | None


def answer(policy: Policy, request: PolicyRequest) -> Answer:
    """Return the reply to a request by itself, and compute its prediction at once."""
    (reply,) = ask(policy, request)
    return Answer(reply.actions, future_of(reply))


def check_independence(policy: Policy) -> None:
    """Check that replies depend neither on other episodes, nor on which requests share a batch, nor on the id.

    Two episodes of three chunks are asked one after the other, then in turn, then in batches: a memory that both share,
    the last observation for example, shows from the second chunk on.
    """
    episodes = [[noise_request(policy.spec, index, chunk_idx) for chunk_idx in range(3)] for index in (0, 7)]
    alone = [[answer(policy, request) for request in episode] for episode in episodes]
    for chunk_idx, requests in enumerate(zip(*episodes, strict=True)):
        for episode, request in zip(alone, requests, strict=True):
            promise = "a reply must not depend on the requests of other episodes between its own"
            check_same_reply(episode[chunk_idx], answer(policy, request), promise)
    for chunk_idx, (first, second) in enumerate(zip(*episodes, strict=True)):
        together = [Answer(reply.actions, future_of(reply)) for reply in ask(policy, second, first)]
        for episode, reply in zip(alone, reversed(together), strict=True):
            check_same_reply(episode[chunk_idx], reply, "a reply must not depend on the other requests of a batch")
    renamed = answer(policy, replace(episodes[0][0], episode_id="another id"))
    promise = "a reply must not depend on the episode's id, which is random; take `noise_seed`"
    check_same_reply(alone[0][0], renamed, promise)


def check_prediction_is_passive(policy: Policy) -> None:
    """Check that computing a prediction changes no later action."""
    (before,) = ask(policy, noise_request(policy.spec, 1, 0))
    if before.prediction is not None:
        before.prediction()
    (after,) = ask(policy, noise_request(policy.spec, 1, 0))
    check_same(before.actions, after.actions, "a prediction must not change actions")


def check_same(one: np.ndarray, other: np.ndarray, promise: str) -> None:
    """Raise AssertionError with a promise and how much two arrays differ, unless they are equal; NaN equals NaN."""
    assert one.shape == other.shape, f"{promise}; shapes are {one.shape} and {other.shape}"
    pair = one.astype(np.float64), other.astype(np.float64)
    differing = (one != other) & ~(np.isnan(pair[0]) & np.isnan(pair[1]))
    if not differing.any():
        return
    gaps = np.abs(pair[0] - pair[1])[differing]
    measured = gaps[~np.isnan(gaps)]
    size = f"by up to {measured.max():.3g}" if measured.size else "where one of them is NaN"
    raise AssertionError(f"{promise}; {len(gaps)} of {one.size} numbers differ, {size}")


def check_same_reply(one: Answer, other: Answer, promise: str) -> None:
    """Raise AssertionError with a promise unless actions and predictions of two replies are equal."""
    check_same(one.actions, other.actions, f"{promise} (actions)")
    check_same_future(one.future, other.future, promise)


def check_same_future(one: Prediction | None, other: Prediction | None, promise: str) -> None:
    """Raise AssertionError unless two predictions are equal, or neither is there."""
    assert (one is None) == (other is None), f"{promise}; one of them has none"
    if one is None or other is None:
        return
    for name in ("rgb", "depth", "proprio"):
        values = getattr(one, name), getattr(other, name)
        if values[0] is not None and values[1] is not None:
            check_same(*values, f"{promise} ({name})")


def future_of(reply: PolicyReply) -> Prediction | None:
    """Return the prediction of a reply; None if there is none."""
    return None if reply.prediction is None else reply.prediction()


def without_prediction(request: PolicyRequest) -> PolicyRequest:
    """Return a request that asks for actions alone."""
    return replace(request, num_predicted_frames=0)


def check_given_actions(policy: Policy) -> None:
    """Check that a policy that takes actions returns those that it is given."""
    spec = policy.spec
    given = np.zeros((spec.chunk_len, ACTION_DIM), np.float32)
    for arm in env_for(spec).arms:
        given[:, ARM_ACTION[arm]] = np.random.default_rng(0).uniform(-0.1, 0.1, (spec.chunk_len, 7))
    (reply,) = ask(policy, replace(noise_request(spec, 0, 0), given_actions=given))
    check_same(reply.actions, given, "takes_actions is stated, so the reply must repeat the given actions")


def check_range(actions: np.ndarray, env: EnvSpec) -> None:
    """Raise Doubt for actions whose numbers have probably other units than the layout."""
    layout, odd = env.action_layout, list[str]()
    for arm in env.arms:
        numbers = np.abs(actions[:, ARM_ACTION[arm]].astype(np.float64))
        moves = numbers[:, :GRIPPER].max()
        if layout == OSC_DELTA_BASE and moves > LARGEST_OSC:
            odd.append(f"translations or rotations reach {moves:.3g}; 1 is {OSC_STEP_M:g} m or {OSC_STEP_RAD:g} rad")
        if layout == EE_POSE_BASE and numbers[:, TRANSLATION].max() > FARTHEST_M:
            odd.append(f"positions reach {numbers[:, TRANSLATION].max():.3g}; they are metres in the base frame")
        angles = numbers[:, :GRIPPER] if layout == JOINT_POSITION else numbers[:, ROTVEC_RAD]
        if layout in (EE_POSE_BASE, JOINT_POSITION) and angles.max() > 4 * np.pi:
            odd.append(f"angles reach {angles.max():.3g}; they are radians")
        odd += _odd_gripper(actions[:, ARM_ACTION[arm]][:, GRIPPER], -1 if layout == OSC_DELTA_BASE else 0)
    _doubt(odd)


def check_units(prediction: Prediction, env: EnvSpec) -> None:
    """Raise Doubt for images, depth or states that have probably another scale, unit or sign."""
    depth, odd = prediction.depth, list[str]()
    if prediction.rgb.max() <= 1:
        odd.append("no predicted colour is above 1; they are numbers from 0 to 255")
    if depth is not None and float(np.median(depth)) > FARTHEST_M:
        odd.append(f"the median of the predicted depth is {np.median(depth):.3g}; depth is in metres")
    if depth is not None and depth.min() < 0:
        odd.append(f"predicted depth goes down to {depth.min():.3g}; it is in metres, and 0 where there is none")
    if prediction.proprio is not None:
        odd += _odd_states(prediction.proprio, env)
    _doubt(odd)


def _odd_states(proprio: np.ndarray, env: EnvSpec) -> Iterator[str]:
    """Yield a sentence for each thing that states, F,16, have probably in another unit or sign."""
    for arm in env.arms:
        states = proprio[:, ARM_PROPRIO[arm]]
        if (farthest := np.abs(states[:, TRANSLATION]).max()) > FARTHEST_M:
            yield f"predicted positions reach {farthest:.3g}; they are metres in the base frame"
        if (least := states[:, QUAT_WXYZ][:, 0].min()) < 0:
            yield f"predicted quaternions (w, x, y, z) have a w of {least:.3g}; states have w >= 0"
        yield from _odd_gripper(states[:, -1], 0)


def _odd_gripper(numbers: np.ndarray, low: float) -> list[str]:
    """Return a sentence if a gripper's numbers are far from the range from `low` to 1."""
    if numbers.min() >= low - GRIPPER_OVERSHOOT and numbers.max() <= 1 + GRIPPER_OVERSHOOT:
        return []
    return [f"grippers go from {span(numbers)}; they are {low} to 1, and 1 opens"]


def _doubt(odd: Sequence[str]) -> None:
    if odd:
        raise Doubt("; ".join(dict.fromkeys(odd)))


def span(values: np.ndarray) -> str:
    """Return the smallest and the largest value as text."""
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
