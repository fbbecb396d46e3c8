"""Reference predictions, which say what a score means: the floor, the ceiling, and sanity checks.

In: the ground truth of a chunk; a run's plan. Out: predictions that are scored like the policy's; the codec of the
policy that ran, which any process can load, or one sentence that says why it is unavailable.
Read next: `chunk.py`, which scores them; `evalkit/contracts/policy.py` for what a plugin offers.

The floor repeats the last frame that the policy saw. The ceiling is the ground truth after a round trip through the
policy's own codec: it is approximate, because a policy that also copies from the current frame can score better. The
ground truth scored against itself must be perfect up to rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.types import Prediction
from evalkit.score.controls.dependence import Branching
from evalkit.score.frame import GroundTruth, Named
from evalkit.score.metrics import depth
from evalkit.score.results.outcome import Measure
from evalkit.store.clips import ClipChunk, Frames
from evalkit.store.plan import PartPlan, Plan

WEIGHTS = "weights"
"""Key of a policy's provenance that names its weights, for example by a hash."""

RoundTrip = Callable[[Prediction], Prediction]
"""Encodes and decodes a prediction with a policy's codec."""


@dataclass(frozen=True, kw_only=True)
class CodecChoice:
    """A codec that any process can load.

    Attributes:
        policy: The plugin, by name or `module:attribute`.
        settings: Its settings as JSON.
    """

    policy: str
    settings: str


def reference_predictions(chunk: ClipChunk, like: Prediction) -> dict[str, Prediction]:
    """Return the floor (repeated last frame); none where the chunk has no start frame.

    Args:
        chunk: The ground truth, and the frame that the policy saw.
        like: What the policy predicts; references leave out depth or states where it has none.
    """
    if not len(chunk.start.rgb_fvhwc_u8):
        return {}
    return {"repeat_last_frame": as_prediction(_repeated(chunk.start, len(chunk.true.rgb_fvhwc_u8)), like)}


def reference_branchings(
    chunk: ClipChunk, other: Frames, like: Prediction, codec: RoundTrip | None
) -> dict[str, Branching]:
    """Return the references of action dependence: the floor, both ground truths, and both after the codec's round trip.

    Args:
        chunk: The ground truth of the recorded actions, and the frame that the policy saw.
        other: The ground truth of other actions.
        like: What the policy predicts.
        codec: The policy's codec; None without one. One that fails is left out here; the ceiling's own row says so.
    """
    true, branch = as_prediction(chunk.true, like), as_prediction(other, like)
    still = reference_predictions(chunk, like)
    pairs = {subject: Branching(same, same) for subject, same in still.items()}
    pairs["ground_truth"] = Branching(true, branch)
    if codec is not None:
        with suppress(Exception):  # a policy's codec is anyone's code
            pairs["codec_round_trip"] = Branching(codec(true), codec(branch))
    return pairs


def codec_round_trip(truth: GroundTruth, like: Prediction, codec: RoundTrip | str) -> Prediction | Measure:
    """Return the ceiling (ground truth after the codec's round trip), or why it is unavailable."""
    if isinstance(codec, str):
        return Measure(None, "unavailable", codec)
    try:
        return codec(as_prediction(truth.frames, like))
    except Exception as error:  # a policy's codec is anyone's code
        return Measure(None, "unavailable", f"the codec failed: {type(error).__name__}: {error}")


def depth_8bit_scores(truth: GroundTruth) -> Iterator[tuple[int, Named]]:
    """Yield the scores of ground-truth depth stored with 8 bits, each with the index of its frame."""
    for frame_idx in truth.frame_idxs:
        for view, name in truth.static:
            true_m = truth.frames.depth_fvhw_m[frame_idx, view]
            errors = depth.depth_errors(true_m, depth.quantised_8bit(true_m))
            yield frame_idx, Named(name, "absrel/gt_mask_10m", errors.absrel())
            yield frame_idx, Named(name, "delta1/gt_mask_10m", errors.delta(1))


def find_codec(
    plan: Plan, *, policy: str | None = None, changes: Mapping[str, Any] | None = None
) -> CodecChoice | str | None:
    """Return the codec of the policy in a plan, or why it is unavailable; None where the policy predicts nothing.

    The policy is built from the plan's settings. It must be the one that the plan states, because other weights have
    another ceiling: with the same `weights` in its provenance, or, if that has no such key, the same provenance.

    Args:
        plan: Of the run.
        policy: Name of the plugin, where it differs from the plan's.
        changes: Settings that do not change the policy: where its weights lie now, on which device they run.
    """
    if not any(spec.get("predicts") for spec in plan.policy.specs.values()):
        return None
    name = policy or plan.policy.name
    try:
        plugin = plugins.load_policy(name)
        if not hasattr(plugin, "codec"):
            return f"policy '{plan.policy.name}' offers no codec."
        config = plugin.config_type(**{**plan.policy.config, **(changes or {})})
        if key := _differing_key(plan.policy, plugin, config):
            return (
                f"the run was planned with another policy (its provenance differs in '{key}'); the ceiling cannot be "
                "scored."
            )
        return CodecChoice(policy=name, settings=json.dumps(asdict(config)))
    except EvalkitError as error:
        return f"policy '{name}' cannot be built again: {error}"
    except Exception as error:  # a plugin is anyone's code
        return f"policy '{name}' cannot be built again: {type(error).__name__}: {error}"


@lru_cache(maxsize=1)
def load_codec(choice: CodecChoice) -> RoundTrip | str:
    """Return a codec, or why it cannot be loaded; each process loads it once."""
    try:
        plugin: Any = plugins.load_policy(choice.policy)
        return plugin.codec(plugin.config_type(**json.loads(choice.settings)))  # type: ignore[no-any-return]
    except Exception as error:  # a plugin is anyone's code
        return f"the codec of policy '{choice.policy}' cannot be loaded: {type(error).__name__}: {error}"


def _differing_key(planned: PartPlan, plugin: Any, config: Any) -> str:
    """Return a key of the provenance that shows another policy than the planned one; empty if it is the same.

    If both state `weights`, the wording of the other keys may have changed since the run. Then changed settings must
    leave the provenance as this machine states it for the plan's settings, if it still can.
    """
    stated, actual = dict(planned.provenance), plugin.provenance(config)
    if WEIGHTS in stated and WEIGHTS in actual:
        if stated[WEIGHTS] != actual[WEIGHTS]:
            return WEIGHTS
        try:
            stated = plugin.provenance(plugin.config_type(**planned.config))
        except Exception:  # the weights have moved; a plugin is anyone's code
            return ""
        if stated[WEIGHTS] != actual[WEIGHTS]:  # other weights lie there now
            return ""
    return next((key for key in dict.fromkeys([*stated, *actual]) if stated.get(key) != actual.get(key)), "")


def _repeated(start: Frames, num_frames: int) -> Frames:
    """Return one frame repeated, in the memory of one."""
    return Frames(
        **{name: np.broadcast_to(array[:1], (num_frames, *array.shape[1:])) for name, array in vars(start).items()}
    )


def as_prediction(frames: Frames, like: Prediction) -> Prediction:
    """Return recorded frames as a prediction, without depth or states where `like` has none."""
    return Prediction(
        rgb=frames.rgb_fvhwc_u8,
        depth=frames.depth_fvhw_m if like.depth is not None else None,
        proprio=frames.proprio_fd if like.proprio is not None else None,
    )
