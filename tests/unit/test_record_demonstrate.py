"""Demonstrations on a robot of one point: intended, executed and recorded actions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.plugins import load_bench
from evalkit.contracts.types import Observation
from evalkit.record.demonstrate import NO_DISTURBANCE, Disturbance, Learner, demonstrate, refuse, rollout
from tests.doubles.known import known
from tests.doubles.point import EPISODE, GOAL_M, ChunkPolicy, PointEnv, PointExpert


def test_an_undisturbed_action_is_the_intended_one() -> None:
    steps = known(demonstrate(PointEnv(), PointExpert(), EPISODE, NO_DISTURBANCE, tail_steps=4))
    np.testing.assert_array_equal(steps.action, known(steps.executed))
    assert len(steps.rgb) == 6 + 4
    np.testing.assert_array_equal(steps.rgb[:, 0, 0, 0, 0], np.arange(10))


def test_labels_are_the_experts_actions_after_a_disturbance() -> None:
    disturbance = Disturbance(burst_prob=0.1, displaced_frac=1.0)
    steps = known(demonstrate(PointEnv(), PointExpert(), EPISODE, disturbance))
    assert np.abs(steps.action - known(steps.executed)).max() > 0.1
    assert np.linalg.norm(steps.proprio[0, :3]) > 0.05
    intended = np.clip((GOAL_M - steps.proprio[:, :3]) / 0.05, -1, 1)
    np.testing.assert_allclose(steps.action[:, :3], intended, atol=1e-5)
    np.testing.assert_array_equal(steps.action[:, 6], known(steps.executed)[:, 6])
    moved = np.diff(steps.proprio[:, :3], axis=0)
    np.testing.assert_allclose(moved, 0.05 * known(steps.executed)[:-1, :3], atol=1e-6)


def test_rollout_keeps_chunks_of_success_and_of_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evalkit.record.demonstrate.check_actions", lambda *_: None)
    env = PointEnv()
    policy = ChunkPolicy(env)
    steps, success = known(rollout(env, policy, EPISODE, tail_steps=4))
    assert success
    assert policy.chunks == [(place, 3 * place, 3 * place) for place in range(len(policy.chunks))]
    np.testing.assert_array_equal(steps.action, known(steps.executed))
    np.testing.assert_allclose(np.diff(steps.proprio[:, :3], axis=0), 0.05 * known(steps.executed)[:-1, :3], atol=1e-6)
    met = np.linalg.norm(steps.proprio[:, :3] - GOAL_M, axis=1) < 0.03
    assert met.sum() == 4  # the goal is met by the action before the first of them
    steps, success = known(rollout(env, ChunkPolicy(env, speed=0.0), replace(EPISODE, max_steps=7)))
    assert not success
    assert len(steps.rgb) == 7


def test_a_rollout_of_broken_actions_is_refused() -> None:
    bench = load_bench("robosuite")
    env = PointEnv()
    env.spec = bench.env_spec(bench.config_type(), task="Lift", setting="default")
    with pytest.raises(EpisodeFault, match="not finite"):
        rollout(env, ChunkPolicy(env, speed=np.nan), EPISODE)


def test_expert_takes_over_and_only_its_steps_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evalkit.record.demonstrate.check_actions", lambda *_: None)
    away_m = []
    for seed in range(8):
        env = PointEnv()
        learner = Learner(ChunkPolicy(env, speed=-0.3), most_steps=10)
        steps = known(
            demonstrate(env, PointExpert(), replace(EPISODE, seed=seed), NO_DISTURBANCE, learner=learner, tail_steps=0)
        )
        first_step = int(steps.rgb[0, 0, 0, 0, 0])  # the env's clock
        assert first_step <= 10
        np.testing.assert_array_equal(steps.rgb[:, 0, 0, 0, 0], first_step + np.arange(len(steps.rgb)))
        np.testing.assert_allclose(steps.action[0, :3], np.clip((GOAL_M - steps.proprio[0, :3]) / 0.05, -1, 1))
        away_m.append(np.linalg.norm(steps.proprio[0, :3]))
    assert len(set(away_m)) > 3
    assert max(away_m) > 0.1


def test_no_expert_steps_where_the_learner_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.record.demonstrate.check_actions", lambda *_: None)
    env, expert = PointEnv(), PointExpert()
    kept = [
        demonstrate(env, expert, replace(EPISODE, seed=seed), NO_DISTURBANCE, learner=Learner(ChunkPolicy(env), 20))
        is not None
        for seed in range(8)
    ]
    assert set(kept) == {True, False}


def test_the_same_seed_has_the_same_disturbances() -> None:
    runs = [known(demonstrate(PointEnv(), PointExpert(), EPISODE, Disturbance())) for _ in range(2)]
    np.testing.assert_array_equal(known(runs[0].executed), known(runs[1].executed))
    other = known(demonstrate(PointEnv(), PointExpert(), replace(EPISODE, seed=8), Disturbance()))
    assert (
        len(known(other.executed)) != len(known(runs[0].executed))
        or (known(other.executed) != known(runs[0].executed)).any()
    )


def test_an_expert_that_fails_gives_nothing() -> None:
    assert demonstrate(PointEnv(), PointExpert(), replace(EPISODE, max_steps=3), NO_DISTURBANCE) is None


def test_a_refusal_intends_to_stand_still_under_disturbances() -> None:
    disturbance = Disturbance(burst_prob=0.1, displaced_frac=1.0)
    steps = known(refuse(PointEnv(), PointExpert(), EPISODE, disturbance, most_steps_before=0, num_steps=10))
    assert len(steps.rgb) == 10
    np.testing.assert_array_equal(steps.action, np.tile(np.eye(14, dtype=np.float32)[6], (10, 1)))
    assert np.ptp(steps.proprio[:, :3], axis=0).max() > 0.01
    still = known(refuse(PointEnv(), PointExpert(), EPISODE, NO_DISTURBANCE, most_steps_before=0, num_steps=10))
    np.testing.assert_array_equal(known(still.executed), still.action)


def test_refusals_stand_anywhere_on_the_experts_path() -> None:
    starts = []
    for seed in range(12):
        steps = known(
            refuse(PointEnv(), PointExpert(), replace(EPISODE, seed=seed), NO_DISTURBANCE, most_steps_before=4)
        )
        assert np.ptp(steps.proprio[:, :3], axis=0).max() == 0.0
        starts.append(np.linalg.norm(steps.proprio[0, :3]))
    assert min(starts) == 0.0
    assert max(starts) > 0.1


def test_a_refusal_that_meets_the_goal_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    env = PointEnv()

    def begin(*, seed: int, max_steps: int) -> bool:
        env.position_m, env.num_steps = GOAL_M, 0
        return False

    monkeypatch.setattr(env, "begin", begin)
    assert refuse(env, PointExpert(), EPISODE, NO_DISTURBANCE, most_steps_before=0) is None
    assert refuse(PointEnv(), PointExpert(), replace(EPISODE, seed=3), NO_DISTURBANCE, most_steps_before=200) is None


class GrippingExpert(PointExpert):
    """Closes its gripper at the third step."""

    def act(self, observation: Observation) -> np.ndarray:
        action = super().act(observation)
        action[6] = 1.0 if self.asked <= 2 else -1.0
        return action


def test_a_refusal_holds_what_the_expert_held() -> None:
    grips = set()
    for seed in range(8):
        steps = known(
            refuse(PointEnv(), GrippingExpert(), replace(EPISODE, seed=seed), NO_DISTURBANCE, most_steps_before=4)
        )
        walked = round(np.abs(steps.proprio[0, :3]).max() / 0.05)
        assert set(steps.action[:, 6]) == {1.0 if walked <= 2 else -1.0}
        grips |= set(steps.action[:, 6])
    assert grips == {1.0, -1.0}


def test_a_goal_met_for_one_step_of_the_expert_is_met() -> None:
    class Passing(PointEnv):
        def advance(self, action: Any) -> Any:
            super().advance(action)
            return self.num_steps == 2 and np.abs(action[:3]).max() > 0

    kept = set()
    for seed in range(12):
        expert = PointExpert()
        steps = refuse(Passing(), expert, replace(EPISODE, seed=seed), NO_DISTURBANCE, most_steps_before=4)
        assert (steps is None) == (expert.asked == 2)
        assert expert.asked <= 2
        kept.add(steps is not None)
    assert kept == {True, False}
