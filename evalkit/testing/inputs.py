"""What a policy is asked to see whether it fits: other envs than its own, requests that evalkit never sends.

In: a policy or its spec. Out: envs, requests, and how the policy reacts to them.
Read next: `policies.py`, which reports the reactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.errors import EpisodeFault, EvalkitError, SpecMismatch, describe
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import Arm, EnvSpec, PolicySpec, check
from evalkit.contracts.types import PolicyRequest
from evalkit.testing.replies import check_acts, future_of
from evalkit.testing.requests import ask, env_for, noise_request


def variants(spec: PolicySpec) -> Iterator[tuple[str, EnvSpec]]:
    """Yield envs that differ from the fitting one in a single trait, each with a name for it."""
    env = env_for(spec)
    height, width = env.image_hw_px
    if spec.needs_images:
        yield "larger images", replace(env, image_hw_px=(height + 32, width + 48))
        yield "a single view", replace(env, cameras=env.cameras[:1])
    other: tuple[Arm, ...] = ("left", "right") if env.arms != ("left", "right") else ("left",)
    cameras = tuple(camera for camera in env.cameras if camera.arm is None or camera.arm in other)
    yield "other arms", replace(env, arms=other, cameras=cameras if spec.views is None else env.cameras)


def must_answer(policy: Policy, env: EnvSpec, name: str) -> str:
    """Return that a policy acts in an env that its spec accepts; raises AssertionError if it does not."""
    try:
        (reply,) = ask(policy, noise_request(policy.spec, 0, 0, env=env), env=env)
        check_acts(reply.actions, env, policy.spec)
        future = future_of(reply)
    except Exception as error:  # a policy is anyone's code
        raise AssertionError(f"the spec accepts {name}, but the policy does not: {describe(error)}") from error
    expected = (len(env.cameras), *env.image_hw_px, 3)
    assert future is None or future.rgb.shape[1:] == expected, (
        f"the spec accepts {name}, but the prediction has the shape {future.rgb.shape[1:]} in place of {expected}"
    )
    return "it acts"


def bad_requests(request: PolicyRequest) -> Iterator[tuple[str, PolicyRequest]]:
    """Yield requests that evalkit never sends, each with a name."""
    seen = request.observation
    nan = np.full_like(seen.proprio, np.nan)
    yield "a state of NaN", replace(request, observation=replace(seen, proprio=nan))
    yield "images cut in half", replace(request, observation=replace(seen, rgb=seen.rgb[:, ::2, ::2]))
    yield "no images", replace(request, observation=replace(seen, rgb=seen.rgb[:0], depth=seen.depth[:0]))


def reaction(policy: Policy, request: PolicyRequest) -> str:
    """Return how a policy reacts to a request that evalkit never sends."""
    try:
        (reply,) = ask(policy, request)
    except (EvalkitError, EpisodeFault) as error:
        return f"it refuses ({error})"
    except Exception as error:  # a policy is anyone's code
        return f"it raises {type(error).__name__}"
    return "it acts" if np.isfinite(reply.actions).all() else "its actions are NaN, which evalkit refuses"


def fitting_benches(bound: BoundPolicy) -> tuple[list[str], Sequence[str]]:
    """Return the benches on which a policy can run, with the number of tasks, and why the others do not fit."""
    fitting, reasons = list[str](), list[str]()
    for name in plugins.names(plugins.BENCHES):
        try:
            bench = plugins.load_bench(name)
            spec, config = bound.for_bench(name).spec(), bench.config_type()
            tasks = [task for task in bench.tasks if _fits(bench, config, task, spec, reasons)]
        except Exception as error:  # a bench is anyone's code, and may lack its simulator
            reasons.append(f"{name}: {error}")
            continue
        if tasks:
            count = "all" if len(tasks) == len(bench.tasks) else f"{len(tasks)} of"
            fitting.append(f"{name} ({count} {len(bench.tasks)} tasks)")
    return fitting, reasons


def _fits(bench: Any, config: Any, task: str, spec: PolicySpec, reasons: list[str]) -> bool:
    try:
        check(bench.env_spec(config, task=task, setting=bench.settings[0]), spec)
    except SpecMismatch as mismatch:
        reasons.append(str(mismatch))
        return False
    return True
