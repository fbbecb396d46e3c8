"""The contract of policies as checks, on observations of noise.

In: a policy plugin with its settings. Out: checks that load it, ask it, and say what they found.
Read next: `replies.py` and `inputs.py`, the single checks; `suite.py`, which judges them.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.errors import SpecMismatch
from evalkit.contracts.policy import Policy, PolicyPlugin
from evalkit.contracts.spec import EPISODE, JOINT_POSITION, check, oracle_keys
from evalkit.contracts.stepped import SteppedPolicy
from evalkit.contracts.text import count_of
from evalkit.testing.inputs import bad_requests, fitting_benches, must_answer, reaction, variants
from evalkit.testing.replies import (
    answer,
    check_acts,
    check_given_actions,
    check_independence,
    check_prediction_is_passive,
    check_range,
    check_replies,
    check_same,
    check_same_future,
    check_same_reply,
    check_units,
    frameworks_of_import,
    future_of,
    load_checked_policy,
    span,
    without_prediction,
)
from evalkit.testing.requests import ask, env_for, noise_request
from evalkit.testing.stepped import check_steps
from evalkit.testing.suite import Check, Doubt, NotApplicable, NotTried, require_all

METHODS = ("reset", "infer")
"""What every policy has; what only some have, a check of its own tries."""


def check_policy(plugin: PolicyPlugin, config: Any = None) -> None:
    """Check everything that a policy promises, on observations of noise; loads its weights.

    Args:
        plugin: The plugin.
        config: Its settings; the defaults if None.

    Raises:
        AssertionError: If a promise is not kept.
    """
    require_all(policy_checks(BoundPolicy(plugin=plugin, config=plugin.config_type() if config is None else config)))


def policy_checks(bound: BoundPolicy) -> list[Check]:
    """Return the checks of a policy in the order in which they are run; the second one loads it."""
    subject = _Subject(bound)
    return [
        Check(
            name="requirements",
            run=subject.requirements,
            advice=f"`evalkit doctor {bound.address}` says how to get what is missing.",
            needed=True,
        ),
        Check(
            name="plugin",
            run=subject.plugin,
            advice="Import frameworks in `make`, not at the top of the module; make `spec` and `make` agree.",
            needed=True,
        ),
        Check(
            name="methods",
            run=subject.methods,
            advice="`Policy` in evalkit/contracts/policy.py states the methods of a policy.",
            needed=True,
        ),
        Check(
            name="fits",
            run=subject.fits,
            advice="`evalkit list --bench NAME` shows what a bench gives, `PolicySpec` what a policy may need.",
        ),
        Check(
            name="actions",
            run=subject.actions,
            advice="The action layouts and their units are at the top of evalkit/contracts/spec.py.",
            needed=True,
        ),
        Check(
            name="prediction",
            run=subject.prediction,
            advice="`Prediction` in evalkit/contracts/types.py states shapes, types and units.",
        ),
        Check(
            name="same seed",
            run=subject.same_seed,
            advice="Draw from a generator that each request makes of its own noise_seed.",
            needs="prediction",
        ),
        Check(
            name="batch",
            run=subject.batch,
            advice="Keep what an episode remembers under its episode_id; let no reply read another request.",
            needs="prediction",
        ),
        Check(
            name="reset",
            run=subject.reset,
            advice="`reset` must forget everything that was kept under the id.",
            needs="prediction",
        ),
        Check(
            name="handles",
            run=subject.handles,
            advice="`PolicyReply.prediction` must hold all that it needs; it is called while later requests come.",
            needs="prediction",
        ),
        Check(
            name="steps",
            run=subject.steps,
            advice="evalkit/contracts/stepped.py states what jobs and passes promise; pad every pass to `width` rows.",
            needs="prediction",
        ),
        Check(
            name="past frames",
            run=subject.past_frames,
            advice="`past_rgb` in evalkit/contracts/types.py says which images they are.",
        ),
        Check(
            name="other envs",
            run=subject.other_envs,
            advice="State `views`, `image_hw_px` and `arms` in the spec, so that evalkit refuses envs that do not fit.",
            needs="prediction",
        ),
        Check(
            name="bad input",
            run=subject.bad_input,
            advice="A request that fails must leave nothing behind.",
        ),
    ]


class _Subject:
    """A policy that is checked; it is loaded once."""

    def __init__(self, bound: BoundPolicy) -> None:
        self._bound = bound

    @cached_property
    def _policy(self) -> Policy:
        return load_checked_policy(self._bound.plugin, self._bound.config)

    def _asked(self) -> Policy:
        """Return the policy if requests of noise can hold all that it reads."""
        unknown = set(oracle_keys(self._policy.spec.privileged_keys)) - {EPISODE, JOINT_POSITION}
        if unknown:
            raise NotTried(
                f"reads the simulator's state ({', '.join(sorted(unknown))}); `evalkit check --policy "
                f"{self._bound.address} --bench NAME` asks it in a simulator"
            )
        return self._policy

    def requirements(self) -> str:
        """Check that everything that the policy needs is on this machine."""
        self._bound.require()
        findings = [finding for finding in self._bound.examine() if finding.ok]
        return ", ".join(f"{each.what} {each.found}".strip() for each in findings) or "states none"

    def plugin(self) -> str:
        """Check that importing the plugin loads no framework, and that the policy is what its plugin states."""
        pickle.dumps(self._bound.plugin)
        assert self._bound.plugin.summary.strip(), "the plugin needs a summary for `evalkit list`"
        loaded = frameworks_of_import(self._bound.plugin)
        assert not loaded, f"importing the plugin loads {', '.join(loaded)}, which every `evalkit list` would wait for"
        started = time.perf_counter()
        policy = self._policy
        loading_s = time.perf_counter() - started
        unique = [name for name, value in self._bound.provenance().items() if value]
        named = f"provenance names {', '.join(unique)}" if unique else "provenance is empty"
        return f"'{policy.spec.policy_id}' is loaded in {loading_s:.1f} s; {named}"

    def methods(self) -> str:
        """Check that the loaded policy has the methods of a policy."""
        kind = type(self._policy).__name__
        missing = [f"`{name}`" for name in METHODS if not callable(getattr(self._policy, name, None))]
        assert not missing, f"the policy that `make` returns, a {kind}, has no method {' and no method '.join(missing)}"
        return f"{kind} has {' and '.join(f'`{name}`' for name in METHODS)}"

    def fits(self) -> str:
        """Name the installed benches on which the policy can run."""
        fitting, reasons = fitting_benches(self._bound)
        if not fitting:
            raise Doubt(f"no installed bench fits; {reasons[0] if reasons else 'none is installed'}")
        return ", ".join(fitting)

    def actions(self) -> str:
        """Check shape, type and range of actions."""
        policy = self._asked()
        env = env_for(policy.spec)
        check(env, policy.spec)
        ask(policy, noise_request(policy.spec, 0, 0))  # the first request takes longer
        started = time.perf_counter()
        (reply,) = ask(policy, without_prediction(noise_request(policy.spec, 0, 0)))
        milliseconds = 1000 * (time.perf_counter() - started)
        check_acts(reply.actions, env, policy.spec)
        check_range(reply.actions, env)
        low, high = float(reply.actions.min()), float(reply.actions.max())
        count, width = reply.actions.shape
        return f"{count} x {width} float32 from {low:.3g} to {high:.3g} ({env.action_layout}) in {milliseconds:.0f} ms"

    def prediction(self) -> str:
        """Check shape, type and range of predictions, and that given actions are repeated."""
        policy = self._asked()
        spec = policy.spec
        check_replies(policy)
        if spec.takes_actions:
            check_given_actions(policy)
        if not spec.predicts:
            raise NotApplicable("predicts nothing")
        (reply,) = ask(policy, noise_request(spec, 0, 0))
        assert reply.prediction is not None
        prediction = reply.prediction()
        check_units(prediction, env_for(spec))
        depth = "" if prediction.depth is None else f" ({span(prediction.depth)} m)"
        kinds = ", ".join(f"{kind}{depth}" if kind == "depth" else kind for kind in spec.predicts)
        return f"{count_of(spec.num_future_frames, 'frame')}, {count_of(spec.frame_stride, 'step')} apart: {kinds}"

    def same_seed(self) -> str:
        """Check that the same request gives the same reply, whatever the global random generators hold."""
        policy = self._asked()
        request = noise_request(policy.spec, 0, 0)
        replies, futures = [], []
        for seed in (1, 2):
            np.random.seed(seed)  # noqa: NPY002
            (reply,) = ask(policy, request)
            replies.append(reply.actions)
            futures.append(None if reply.prediction is None else reply.prediction())
        check_same(replies[0], replies[1], "the same request must give the same actions")
        check_same_future(futures[0], futures[1], "the same request must give the same prediction")
        (other,) = ask(policy, replace(request, noise_seed=request.noise_seed ^ 1))
        differs = "other actions" if not np.array_equal(other.actions, replies[0]) else "the same actions"
        return f"equal to the bit; another noise_seed gives {differs}"

    def batch(self) -> str:
        """Check that a reply does not depend on other requests, their order, or the episode's id."""
        check_independence(self._asked())
        return "replies are the same alone, between and in a batch with those of another episode, and under another id"

    def reset(self) -> str:
        """Check that an episode starts the same after another one under the same id."""
        policy = self._asked()
        one, other = ([noise_request(policy.spec, index, chunk_idx) for chunk_idx in range(3)] for index in (3, 4))
        first, second = ([answer(policy, request) for request in requests] for requests in (one, other))
        renamed = [replace(request, episode_id=one[0].episode_id) for request in other]
        for requests, before in ((renamed, second), (one, first)):
            for chunk_idx, request in enumerate(requests):
                promise = f"chunk {chunk_idx} of an episode must be the same after another one under its id and `reset`"
                check_same_reply(before[chunk_idx], answer(policy, request), promise)
        return "an episode of three chunks is the same after another one under its id"

    def handles(self) -> str:
        """Check that predictions come late without changing, and change no action."""
        policy = self._asked()
        spec = policy.spec
        if not spec.predicts:
            raise NotApplicable("predicts nothing")
        check_prediction_is_passive(policy)
        first, second = noise_request(spec, 1, 0), noise_request(spec, 1, 1)
        (with_frames,), (without,) = ask(policy, first), ask(policy, without_prediction(first))
        check_same(with_frames.actions, without.actions, "actions must not depend on num_predicted_frames")
        at_once = future_of(ask(policy, first)[0])
        later = ask(policy, first)[0]
        ask(policy, noise_request(spec, 2, 0))
        ask(policy, second)
        check_same_future(at_once, future_of(later), "a prediction must be the same if later requests came before it")
        return "a prediction changes no action, and later requests change no prediction"

    def steps(self) -> str:
        """Check the passes of a policy that answers by denoising steps."""
        if not isinstance(self._policy, SteppedPolicy):
            raise NotApplicable("answers a request in one call")
        self._asked()
        return check_steps(self._policy)

    def past_frames(self) -> str:
        """Check that a policy that asks for the frames between its requests takes them."""
        policy = self._asked()
        spec = policy.spec
        if spec.past_frame_stride is None:
            raise NotApplicable("asks for none (past_frame_stride)")
        first, second = noise_request(spec, 4, 0), noise_request(spec, 4, 1)
        assert second.past_rgb is not None
        ask(policy, first)
        (reply,) = ask(policy, second)
        ask(policy, first)
        (other,) = ask(policy, replace(second, past_rgb=255 - second.past_rgb))
        if np.array_equal(reply.actions, other.actions):
            raise Doubt("the actions do not depend on them, although their rendering costs time")
        return f"{' x '.join(map(str, second.past_rgb.shape))} uint8; the actions depend on them"

    def other_envs(self) -> str:
        """Check that what the spec leaves open does not matter, and that evalkit refuses what does not fit."""
        policy = self._asked()
        said = []
        for name, env in variants(policy.spec):
            try:
                check(env, policy.spec)
            except SpecMismatch:
                said.append(f"{name}: evalkit refuses them")
                continue
            said.append(f"{name}: {must_answer(policy, env, name)}")
        return "; ".join(said)

    def bad_input(self) -> str:
        """Report how the policy reacts to what evalkit never sends, and check that it recovers."""
        policy = self._asked()
        request = noise_request(policy.spec, 0, 0)
        (before,) = ask(policy, request)
        said = [f"{name}: {reaction(policy, bad)}" for name, bad in bad_requests(request)]
        (after,) = ask(policy, request)
        check_same(before.actions, after.actions, "a bad request must not change the actions of later ones")
        return "; ".join(said)
