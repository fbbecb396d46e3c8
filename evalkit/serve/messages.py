"""The messages between a policy server and its clients, as types.

In: requests and replies of `evalkit/contracts/types.py`. Out: dicts that `msgpack_arrays` writes, and back.
Read next: `server.py` and `client.py`, the two ends; docs/serving.md, the same for readers without Python.

A message with the key `evalkit` is one of ours: it has a number, so that replies may come in any order. A message
without it is a plain observation of openpi's dialect, answered in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import (
    EVERYTHING,
    JOINT_POSITION,
    ROBOT_STATE,
    CameraSpec,
    EnvSpec,
    PolicySpec,
    check_observation,
    readable_keys,
    reads_episode,
)
from evalkit.contracts.types import (
    ACTION_DIM,
    ARM_PROPRIO,
    PROPRIO_DIM,
    CommittedActions,
    Episode,
    Observation,
    PolicyReply,
    PolicyRequest,
    Prediction,
)
from evalkit.serve.greeting import KEY, typed

NO_VIEW: Mapping[str, np.ndarray] = {
    "rgb": np.zeros((0, 0, 0, 3), np.uint8),
    "depth": np.zeros((0, 0, 0), np.float32),
    "intrinsics": np.zeros((0, 3, 3)),
    "T_base_cam": np.zeros((0, 4, 4)),
}
"""What an observation without images holds."""

IMAGES = tuple(NO_VIEW)
OPTIONS = ("episode_id", "chunk_idx", "step_idx", "noise_seed", "num_predicted_frames", "given_actions", "past_rgb")
COMMITTED = "committed"
"""Key of what the robot executes while the policy computes: a dictionary with the fields of `CommittedActions`."""

WITHIN = "within_ms"
"""Key of the milliseconds after its arrival within which a request's actions are of use."""

PRIVATE = ("privileged", "episode")
"""Keys of requests over a private connection, in addition to the observation's."""

ROBOT_KEYS = (JOINT_POSITION, *ROBOT_STATE)
"""Keys of the state that a robot itself measures."""


def observation_keys(spec: PolicySpec) -> tuple[str, ...]:
    """Return the keys of an observation for a policy: what every request must hold. Unknown depth may be left out.

    Example:
        >>> spec = PolicySpec(policy_id="x", action_layouts=("osc_delta_base",), chunk_len=8, execute_steps=8)
        >>> observation_keys(spec)
        ('rgb', 'intrinsics', 'T_base_cam', 'proprio', 'instruction')
    """
    robot = readable_keys(spec, (*spec.privileged_keys, JOINT_POSITION)) if not reads_episode(spec) else ()
    only = robot if spec.action_layouts == (JOINT_POSITION,) else tuple(k for k in robot if k != JOINT_POSITION)
    images = [key for key in IMAGES if key != "depth"] if spec.needs_images else []
    return (*images, "proprio", "instruction", *dict.fromkeys(only))


def message_of(request: PolicyRequest, *, private: bool) -> dict[str, Any]:
    """Return a request as one flat dictionary. It holds neither seed nor task of the episode, unless it is private."""
    seen = request.observation
    message: dict[str, Any] = {name: getattr(seen, name) for name in (*IMAGES, "proprio", "instruction")}
    if not np.any(seen.depth):
        del message["depth"]  # unknown everywhere
    message |= {name: getattr(request, name) for name in OPTIONS if getattr(request, name) is not None}
    if request.committed is not None:
        message[COMMITTED] = vars(request.committed)
    if not private:
        return {**message, **{key: value for key, value in seen.privileged.items() if key in ROBOT_KEYS}}
    episode = None if request.episode is None else request.episode.to_json()
    return {**message, "privileged": dict(seen.privileged), "episode": episode}


def request_of(
    message: Mapping[str, Any], spec: PolicySpec, env: EnvSpec, *, episode_id: str, private: bool
) -> PolicyRequest:
    """Return the request that a message is.

    Args:
        message: The flat dictionary.
        spec: Of the policy.
        env: Of the episode.
        episode_id: What the policy calls the episode.
        private: Whether the message may hold the planned episode and the simulator's state.

    Raises:
        BadMessage: Names every missing and unknown key, or the first value of another type or shape.
    """
    _check_keys(message, spec, private=private)
    privileged = _privileged(message, private=private)
    observation = _observation(message, privileged)
    if EVERYTHING not in spec.privileged_keys:
        env = replace(env, privileged_keys=readable_keys(spec, env.privileged_keys))
    is_rendered = spec.needs_images or bool(len(observation.rgb))
    try:
        check_observation(observation, env, rendered=is_rendered, check_depth="depth" in message)
    except EpisodeFault as fault:
        raise BadMessage(fault.reason.removeprefix(f"{env.env_id}: ").rstrip(".")) from fault
    episode = message.get("episode")
    return PolicyRequest(
        episode_id=episode_id,
        chunk_idx=_whole(message, "chunk_idx", 2**31),
        step_idx=_whole(message, "step_idx", 2**31),
        noise_seed=_whole(message, "noise_seed", 2**32),
        observation=observation,
        num_predicted_frames=_whole(message, "num_predicted_frames", spec.num_future_frames + 1),
        given_actions=_given_actions(message, spec),
        past_rgb=_past_rgb(message, spec, observation),
        episode=None if episode is None else typed(Episode, episode, "'episode'"),
        committed=_committed(message, spec),
    )


def _check_keys(message: Mapping[str, Any], spec: PolicySpec, *, private: bool) -> None:
    """Raise BadMessage for missing and unknown keys."""
    expected = observation_keys(spec)
    optional = {
        *IMAGES,
        *OPTIONS,
        JOINT_POSITION,
        "action_layout",
        COMMITTED,
        WITHIN,
        KEY,
        *(PRIVATE if private else ()),
    }
    missing = [] if private else [key for key in expected if key not in message]
    if private:
        missing = [key for key in ("proprio", "instruction") if key not in message]
    unknown = [str(key)[:40] for key in message if key not in expected and key not in optional]
    problems = [f"lacks {', '.join(missing)}"] if missing else []
    problems += [f"holds the unknown {', '.join(unknown[:8])}"] if unknown else []
    if problems:
        options = ", ".join(name for name in OPTIONS if name != "past_rgb" or spec.past_frame_stride)
        raise BadMessage(
            f"the request {' and '.join(problems)}; it must hold {', '.join(expected)}, and may hold depth, {options}"
        )


def _privileged(message: Mapping[str, Any], *, private: bool) -> dict[str, np.ndarray]:
    """Return the state of the robot, and that of the simulator over a private connection."""
    given = dict(message.get("privileged") or {}) if private else {}
    given |= {key: value for key, value in message.items() if key in ROBOT_KEYS}
    for key, value in given.items():
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype != np.float64:
            raise BadMessage(f"{key} must be float64 of one axis, got {_form(value)}")
    return given


def _observation(message: Mapping[str, Any], privileged: Mapping[str, np.ndarray]) -> Observation:
    """Return the observation of a message; without images it has no view, without depth all depth is unknown."""
    images = {name: message.get(name, none) for name, none in NO_VIEW.items()}
    if "depth" not in message and isinstance(images["rgb"], np.ndarray):
        images["depth"] = _unknown_depth(images["rgb"].shape[:3])
    for name, value in images.items():
        if not isinstance(value, np.ndarray) or value.ndim != NO_VIEW[name].ndim:
            raise BadMessage(f"{name} must be an array of {NO_VIEW[name].ndim} axes, got {_form(value)}")
    proprio, instruction = message["proprio"], message["instruction"]
    return Observation(**images, proprio=proprio, instruction=instruction, privileged=privileged)


@lru_cache(maxsize=16)
def _unknown_depth(shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros that are not written to."""
    zeros = np.zeros(shape, np.float32)
    zeros.flags.writeable = False
    return zeros


def _given_actions(message: Mapping[str, Any], spec: PolicySpec) -> np.ndarray | None:
    given = message.get("given_actions")
    if given is None:
        return None
    if not spec.takes_actions:
        raise BadMessage(f"given_actions cannot be used: policy '{spec.policy_id}' only predicts its own actions")
    return _array(given, "given_actions", (spec.chunk_len, ACTION_DIM), np.float32)


def _committed(message: Mapping[str, Any], spec: PolicySpec) -> CommittedActions | None:
    fields = message.get(COMMITTED)
    if fields is None:
        return None
    names, known = {"actions", "delay", "last", "strategy"}, [join.strategy for join in spec.joins if not join.refusal]
    if not isinstance(fields, Mapping) or set(fields) != names:
        raise BadMessage(f"{COMMITTED} must hold {', '.join(sorted(names))}, got {_form(fields)}")
    if fields["strategy"] not in known:
        raise BadMessage(f"{COMMITTED} cannot be used: policy '{spec.policy_id}' joins chunks by {known or 'nothing'}")
    actions = fields["actions"]
    num_left = min(len(actions), spec.chunk_len) if isinstance(actions, np.ndarray) and actions.ndim else 0
    return CommittedActions(
        actions=_array(actions, f"{COMMITTED}.actions", (num_left, ACTION_DIM), np.float32),
        delay=_whole(fields, "delay", num_left + 1),
        last=_array(fields["last"], f"{COMMITTED}.last", (ACTION_DIM,), np.float32),
        strategy=fields["strategy"],
    )


def _past_rgb(message: Mapping[str, Any], spec: PolicySpec, observation: Observation) -> np.ndarray | None:
    past = message.get("past_rgb")
    if spec.past_frame_stride is None:
        if past is not None:
            raise BadMessage(f"past_rgb cannot be used: policy '{spec.policy_id}' reads the current images alone")
        return None
    num_frames = len(past) if isinstance(past, np.ndarray) and past.ndim else 0
    return _array(past, "past_rgb", (num_frames, *observation.rgb.shape), np.uint8)


def within_s_of(message: Mapping[str, Any]) -> float | None:
    """Return the seconds within which a request's actions are of use; None for any time."""
    value = message.get(WITHIN)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1e9:
        raise BadMessage(f"{WITHIN} must be a number of milliseconds above 0, got {str(value)[:40]}")
    return float(value) / 1e3


def _array(value: Any, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != dtype:
        raise BadMessage(f"{name} must be {np.dtype(dtype)} {shape}, got {_form(value)}")
    if not np.isfinite(value).all():
        raise BadMessage(f"{name} holds values that are not finite")
    return value


def _whole(message: Mapping[str, Any], name: str, end: int) -> int:
    value = message.get(name, 0)
    if isinstance(value, np.integer):
        value = int(value)
    if type(value) is not int or not 0 <= value < end:
        raise BadMessage(f"{name} must be a whole number from 0 to {end - 1}, got {str(value)[:40]}")
    return value


def _form(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def env_of(message: Mapping[str, Any], spec: PolicySpec) -> EnvSpec:
    """Return the spec of the env that a client without a reset must have, by its policy's spec and an observation.

    Raises:
        BadMessage: If the policy acts in several layouts and the message does not name one as `action_layout`.
    """
    rgb, proprio = message.get("rgb"), message.get("proprio")
    views, height, width = rgb.shape[:3] if isinstance(rgb, np.ndarray) and rgb.ndim == 4 else (0, 0, 0)
    kinds = spec.views or ("static",) * views
    has_state = isinstance(proprio, np.ndarray) and proprio.shape == (PROPRIO_DIM,)
    present = tuple(arm for arm, numbers in ARM_PROPRIO.items() if has_state and proprio[numbers].any())  # type: ignore[index]
    layout = message.get("action_layout", spec.action_layouts[0] if len(spec.action_layouts) == 1 else None)
    if layout not in spec.action_layouts:
        raise BadMessage(f"action_layout must be one of {', '.join(spec.action_layouts)}, got {str(layout)[:40]}")
    return EnvSpec(
        env_id="remote",
        cameras=tuple(CameraSpec(name=f"{kind}{i}", kind=kind) for i, kind in enumerate(kinds)),  # type: ignore[arg-type]
        image_hw_px=spec.image_hw_px or (height, width),
        arms=spec.arms or present,  # type: ignore[arg-type]
        action_layout=layout,
        control_hz=spec.control_hz or 1.0,  # the policy's spec takes any rate
        privileged_keys=tuple(key for key in observation_keys(spec) if key not in (*IMAGES, "proprio", "instruction")),
    )


def reply_message(actions: np.ndarray, timings_ms: Mapping[str, float], *, infer_ms: float) -> dict[str, Any]:
    """Return the actions of a reply, with what the server took under the name that openpi's server uses."""
    timing = {"infer_ms": infer_ms, **{name: float(each) for name, each in timings_ms.items()}}
    return {"actions": actions, "server_timing": timing}


def reply_of(message: Mapping[str, Any]) -> PolicyReply:
    """Return the reply that a message is, without its prediction; raises BadMessage if it is none."""
    actions, ours = message.get("actions"), message.get(KEY, {})
    if not isinstance(actions, np.ndarray):
        raise BadMessage(f"the reply's actions must be an array, got {_form(actions)}")
    timing, details = message.get("server_timing", {}), ours.get("details", {})
    if not isinstance(timing, dict) or not isinstance(details, dict):
        raise BadMessage("the reply's server_timing and details must be dicts")
    return PolicyReply(actions=actions, timings_ms=dict(timing), details=dict(details))


def prediction_message(prediction: Prediction) -> dict[str, Any]:
    """Return the arrays of a prediction."""
    return {entry.name: getattr(prediction, entry.name) for entry in fields(Prediction)}


def prediction_of(message: Mapping[str, Any]) -> Prediction:
    """Return the prediction that a message is; `run_episode` checks its arrays against the policy's spec."""
    return Prediction(**{entry.name: message.get(entry.name) for entry in fields(Prediction)})  # type: ignore[arg-type]


def error_message(error: Exception) -> dict[str, Any]:
    """Return what a client needs to raise the same error."""
    if isinstance(error, EpisodeFault):
        return {"error": error.reason, "kind": "fault", "blame": error.blame, "retriable": error.retriable}
    kind = "refused" if isinstance(error, EvalkitError) else "fault"
    return {"error": str(error), "kind": kind, "blame": "policy", "retriable": False}


def error_of(message: Mapping[str, Any], url: str) -> Exception:
    """Return the error that a message is."""
    said = str(message.get("error"))
    if message.get("kind") == "refused":
        return EvalkitError(said)
    blame = message.get("blame")
    return EpisodeFault(
        blame if blame in ("env", "policy", "harness") else "policy",
        f"The server at {url}: {said}",
        retriable=message.get("retriable") is True,
    )


def env_message(env: EnvSpec) -> dict[str, Any]:
    """Return the env's spec as it is sent with a reset."""
    return asdict(env)
