"""Execution on the robot's clock: which action is executed when, by closed form; delays, late chunks, refusals."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.uwm.models import MODELS as UWM
from evalkit.contracts import msgpack_arrays
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.execution import PLAIN, Execution, check_execution, delay_steps, execution_departures
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, Join, PolicySpec
from evalkit.contracts.types import CommittedActions, Observation, PolicyRequest
from evalkit.report.write import build_report
from evalkit.run.realtime import RobotClock, average, jerk_mps3, standing_action, zone_error_m
from evalkit.serve.messages import message_of, request_of
from evalkit.store.plan import Plan
from evalkit.store.run_folder import open_run
from evalkit.testing.requests import noise_request
from tests.doubles.bench import fake_spec
from tests.doubles.policy import FakePolicyConfig, FakePolicyPlugin
from tests.doubles.runs import run_fake
from xwam.config import NANO
from xwam.families import model_from_json
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.training.recipes import Recipe, RecipeError, recipe_of
from xwam.training.unused import refuse_unused

ENV = fake_spec("Near")  # 20 Hz: 50 ms are one control step
SPEC = PolicySpec(policy_id="toy", action_layouts=(ENV.action_layout,), chunk_len=8, execute_steps=2)
JOINS = (Join(strategy="guided"), Join(strategy="prefix", max_delay=4))
STILL = 0.0


def execution(strategy: str, steps: int = 0) -> Execution:
    return Execution(realtime=strategy, delay_ms=str(50 * steps))


def observed(**changes: Any) -> Observation:
    none = np.zeros(0)
    fields = {"rgb": none, "depth": none, "intrinsics": none, "T_base_cam": none, "proprio": np.zeros(16), **changes}
    return Observation(instruction="", **fields)


class Drive:
    """A policy whose chunk i holds the number i + k / 100 at place k, executed for some steps."""

    def __init__(self, chosen: Execution, *, latencies_s: Sequence[float] = (), max_steps: int = 12, **spec: int):
        policy = replace(SPEC, **spec)  # type: ignore[arg-type]
        self.robot, self.committed = RobotClock(chosen, policy, ENV), list[CommittedActions | None]()
        self.executed, self.predicts = list[float](), list[bool]()
        index = 0
        while len(self.executed) < max_steps:
            self.committed.append(self.robot.committed())
            self.predicts.append(self.robot.predicts_what_it_executes)
            chunk = np.zeros((policy.chunk_len, 14), np.float32)
            chunk[:, 0] = index + np.arange(policy.chunk_len) / 100
            actions = self.robot.actions(
                chunk,
                observed(),
                latency_s=latencies_s[index] if latencies_s else 0.0,
                max_steps=max_steps - len(self.executed),
            )
            self.robot.note_executed(actions)
            self.executed += [round(float(action[0]), 6) for action in actions]
            index += 1


# ---- which action is executed when


def test_sync_stands_still_during_every_delay() -> None:
    found = Drive(execution("sync", 1)).executed
    assert found == [STILL, 0, 0.01, STILL, 1, 1.01, STILL, 2, 2.01, STILL, 3, 3.01]


@pytest.mark.parametrize("strategy", ["async", "guided", "prefix"])
def test_the_old_chunk_goes_on_then_the_offset_matches(strategy: str) -> None:
    found = Drive(execution(strategy, 1)).executed
    assert found == [STILL, 0, 0.01, 0.02, 1.01, 1.02, 2.01, 2.02, 3.01, 3.02, 4.01, 4.02]


def test_a_delay_above_the_executed_steps_sets_the_pace() -> None:
    found = Drive(execution("async", 3), max_steps=14).executed
    assert found == [STILL] * 3 + [0, 0.01, 0.02, 0.03, 0.04, 1.03, 1.04, 1.05, 2.03, 2.04, 2.05]


def test_a_late_chunk_lets_the_robot_stand_still() -> None:
    drive = Drive(execution("async", 2), chunk_len=4, execute_steps=3, max_steps=11)
    assert drive.executed == [STILL, STILL, 0, 0.01, 0.02, 0.03, STILL, 1.02, 1.03, STILL, 2.02]
    counted = drive.robot.to_json()
    assert (counted["late_chunks"], counted["held_steps"]) == (2, 4)
    assert Drive(execution("async", 1)).robot.to_json()["late_chunks"] == 0


def test_blend_weighs_all_chunks_that_hold_the_step() -> None:
    found = Drive(execution("blend"), chunk_len=6, max_steps=6).executed
    two, three = np.exp(-0.01 * np.arange(2)), np.exp(-0.01 * np.arange(3))
    two, three = two / two.sum(), three / three.sum()
    expected = [0, 0.01, two @ [0.02, 1], two @ [0.03, 1.01], three @ [0.04, 1.02, 2], three @ [0.05, 1.03, 2.01]]
    assert found == pytest.approx(expected, abs=1e-6)


def test_blend_holds_new_chunks_back_until_they_arrive() -> None:
    found = Drive(execution("blend", 1), max_steps=5).executed
    weights = np.exp(-0.01 * np.arange(2))
    assert found == pytest.approx([STILL, 0, 0.01, 0.02, weights @ [0.03, 1.01] / weights.sum()], abs=1e-6)


@pytest.mark.parametrize("strategy", ["async", "guided", "prefix"])
def test_without_delay_they_are_sync(strategy: str) -> None:
    assert Drive(execution(strategy)).executed == Drive(execution("sync")).executed


def test_a_measured_delay_is_rounded_up_to_a_step() -> None:
    assert (delay_steps(0.05, 20), delay_steps(0.0501, 20), delay_steps(0.0, 20)) == (1, 2, 0)
    measured = Execution(realtime="async", delay_ms="measured")
    found = Drive(measured, latencies_s=[0.04, 0.08, 0.01, 0.01], max_steps=8).executed
    assert found == [STILL, 0, 0.01, 0.02, 0.03, 1.02, 2.01, 2.02]


def test_the_policy_is_told_what_will_be_executed() -> None:
    drive = Drive(execution("prefix", 1))
    assert drive.committed[0] is None
    for index, committed in enumerate(drive.committed[1:]):
        assert committed is not None
        start = 2  # the first action that is executed, or compared, after the request
        assert committed.actions[:, 0] == pytest.approx(index + np.arange(start, 8) / 100)
        assert (committed.delay, committed.strategy) == (1, "prefix")
        assert committed.last[0] == pytest.approx(index + 0.01)
    assert set(Drive(execution("async", 1)).committed) == {None}
    assert set(Drive(execution("prefix")).committed) == {None}  # nothing is committed
    assert Drive(execution("guided")).committed[1] is not None  # it joins what is left of the old chunk


def test_only_predictions_of_executed_actions_are_asked_for() -> None:
    assert set(Drive(execution("sync")).predicts) == {True}
    for strategy in ("sync", "async", "blend"):
        assert set(Drive(execution(strategy, 1)).predicts) == {False}
    assert Drive(execution("guided", 1)).predicts[:3] == [False, True, True]
    assert set(Drive(execution("blend")).predicts) == {False}


def test_an_episode_ends_within_a_delay() -> None:
    drive = Drive(execution("sync", 5), max_steps=3)
    assert drive.executed == [STILL] * 3
    assert drive.robot.to_json()["held_steps"] == 3


# ---- standing still, averages, errors, jerk


def test_a_robot_stands_still_in_every_layout() -> None:
    last = np.arange(1, 15, dtype=np.float32) / 20
    assert standing_action(last, observed(), ENV.action_layout)[:7].tolist() == [0] * 6 + [last[6]]
    assert standing_action(last, observed(), EE_POSE_BASE).tolist() == last.tolist()
    assert not standing_action(None, observed(), ENV.action_layout).any()
    joints = np.arange(14.0)
    assert standing_action(None, observed(privileged={JOINT_POSITION: joints}), JOINT_POSITION).tolist() == [*joints]
    quarter = [0.1, 0.2, 0.3, np.sqrt(0.5), 0, 0, np.sqrt(0.5), 1]
    found = standing_action(None, observed(proprio=np.array([*quarter, *[0.0] * 8])), EE_POSE_BASE)
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0, 0, np.pi / 2, 1, *[0] * 7], atol=1e-6)


def test_rotations_of_poses_are_averaged_as_rotations() -> None:
    one, other = np.zeros(14, np.float32), np.zeros(14, np.float32)
    one[5], other[5] = 3.1, -3.1  # 0.08 rad apart, on either side of a half turn
    assert abs(average([one, other], EE_POSE_BASE)[5]) == pytest.approx(np.pi, abs=1e-3)
    assert abs(average([one, other], ENV.action_layout)[5]) < 0.02


def test_zone_error_by_hand() -> None:
    executed, new = np.zeros((2, 14)), np.zeros((2, 14))
    executed[:, 0] = [1, 3]  # clipped at 1: 5 and 10 cm from the start
    assert zone_error_m(executed, new, ENV) == pytest.approx((0.05 + 0.10) / 2)
    poses = replace(ENV, action_layout=EE_POSE_BASE, arms=("left", "right"))
    executed[:, 7] = 0.1
    assert zone_error_m(executed, new, poses) == pytest.approx((2 + 0.1) / 2)
    assert zone_error_m(executed, new, replace(ENV, action_layout=JOINT_POSITION)) is None


def test_jerk_of_constant_velocity_is_none() -> None:
    actions = np.full((10, 14), 0.5)
    assert jerk_mps3(actions, "left", ENV) == pytest.approx(0, abs=1e-6)
    actions[5:, 0] = -0.5  # velocity jumps once: one second difference of 5 cm, spread over two third differences
    jump = 0.05 * 20**3
    assert jerk_mps3(actions, "left", ENV) == pytest.approx(np.sqrt(2 * jump**2 / 7))
    assert jerk_mps3(actions[:3], "left", ENV) is None


# ---- refusals and departures


def refused(chosen: Execution, policy: PolicySpec = SPEC, **env: Any) -> str:
    with pytest.raises(BadConfig) as error:
        check_execution(chosen, replace(ENV, **env), policy)
    return str(error.value)


def test_unknown_values_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"execution.realtime must be sync, async, blend, guided or prefix, got fast"):
        Execution(realtime="fast")
    with pytest.raises(BadConfig, match="must be a number of milliseconds or 'measured', got 'soon'"):
        Execution(delay_ms="soon")
    for delay in ("-1", "nan", "inf"):
        with pytest.raises(BadConfig, match=r"execution.delay_ms must be from 0 to 60000 ms"):
            Execution(delay_ms=delay)
    assert Execution(delay_ms="100") == Execution(delay_ms="1e2") == Execution(delay_ms="100.0")


def test_what_a_policy_cannot_do_is_refused() -> None:
    assert "one action at a time" in refused(execution("async"), replace(SPEC, chunk_len=1, execute_steps=1))
    assert "a chunk of 8 actions would be over" in refused(execution("blend", 8))
    assert "use sync, async or blend" in refused(execution("guided", 1))
    worse = replace(SPEC, joins=(Join(strategy="guided", refusal="With 2 steps it joins worse."),))
    assert "With 2 steps it joins worse." in refused(execution("guided", 1), worse)
    joining = replace(SPEC, joins=JOINS)
    assert "(it can by prefix)" in refused(execution("guided"), replace(SPEC, joins=JOINS[1:]))
    assert "5 actions of a chunk of 8 are over" in refused(execution("guided", 5), joining)
    check_execution(execution("prefix", 4), ENV, joining)
    assert "stands still in the layout 'other'" in refused(execution("sync", 1), action_layout="other")
    seeing = replace(SPEC, past_frame_stride=2)
    assert "give a delay of a multiple of 2 steps" in refused(execution("async", 1), seeing)
    assert "a measured delay" in refused(Execution(delay_ms="measured"), seeing)
    check_execution(execution("async", 2), ENV, seeing)


def test_an_untrained_prefix_needs_to_be_allowed() -> None:
    untrained = replace(SPEC, joins=(Join(strategy="prefix", max_delay=0),))
    short = replace(SPEC, joins=(Join(strategy="prefix", max_delay=1),))
    assert "trained without clean first ones; train one with prefix_actions_max=2" in refused(
        execution("prefix", 2), untrained
    )
    assert "with at most 1 clean first actions" in refused(execution("prefix", 2), short)
    allowed = replace(execution("prefix", 2), untrained_prefix=True)
    check_execution(allowed, ENV, short)
    assert "not trained with clean first actions" in execution_departures(allowed, ENV, short)[-1]
    assert len(execution_departures(allowed, ENV, replace(SPEC, joins=JOINS))) == 2


# ---- over a connection


def sent(request: PolicyRequest, spec: PolicySpec) -> PolicyRequest:
    message = msgpack_arrays.unpack(msgpack_arrays.pack(message_of(request, private=False)))
    return request_of(message, spec, ENV, episode_id="x", private=False)


def test_committed_actions_cross_a_connection() -> None:
    spec = replace(SPEC, joins=JOINS, needs_images=False)
    committed = CommittedActions(
        actions=np.arange(42, dtype=np.float32).reshape(3, 14), delay=2, last=np.ones(14, np.float32), strategy="prefix"
    )
    request = replace(noise_request(spec, 0, 0, env=ENV), committed=committed)
    found = sent(request, spec).committed
    assert found is not None
    assert (found.delay, found.strategy) == (2, "prefix")
    np.testing.assert_array_equal(found.actions, committed.actions)
    np.testing.assert_array_equal(found.last, committed.last)
    with pytest.raises(BadMessage, match="joins chunks by nothing"):
        sent(request, replace(spec, joins=()))
    with pytest.raises(BadMessage, match="delay must be a whole number from 0 to 3"):
        sent(replace(request, committed=replace(committed, delay=4)), spec)


# ---- whole runs


class ToyPlugin(FakePolicyPlugin):
    """The fake policy, whose chunks of 8 actions are executed for 4 steps."""

    def spec(self, config: FakePolicyConfig) -> PolicySpec:
        return replace(super().spec(config), execute_steps=4, joins=JOINS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("realtime")

    def run(name: str, *overrides: str) -> Path:
        if not (folder / name).is_dir():
            run_fake(folder / name, *overrides, episodes=2, tasks=("Near",), policy=ToyPlugin())
        return folder / name

    return run


def test_a_run_without_delay_is_sync_to_the_bit(runs: Any) -> None:
    plain, plans = open_run(runs("plain")), set()
    hashes = [record.actions_sha256 for record in plain.records()]
    for strategy in ("async", "prefix"):
        folder = open_run(runs(strategy, f"execution.realtime={strategy}"))
        assert [record.actions_sha256 for record in folder.records()] == hashes
        plans.add(folder.plan.sha256)
    assert len(plans | {plain.plan.sha256}) == 3
    assert all(record.realtime is None for record in plain.records())


def test_a_run_with_a_delay_repeats_to_the_bit(runs: Any) -> None:
    one, other = (open_run(runs(name, "execution.realtime=blend", "execution.delay_ms=100")) for name in ("a", "b"))
    assert [r.actions_sha256 for r in one.records()] == [r.actions_sha256 for r in other.records()]
    assert [r.realtime for r in one.records()] == [r.realtime for r in other.records()]
    assert [r.realtime["delay_steps"] for r in one.records() if r.realtime] == [2, 2]


def test_the_plan_states_the_execution(runs: Any) -> None:
    plan = open_run(runs("a", "execution.realtime=blend", "execution.delay_ms=100")).plan
    assert plan.execution == Execution(realtime="blend", delay_ms="100")
    assert "Each answer arrives 100 ms (2 control steps) after its request." in plan.departures
    assert Plan.from_bytes(plan.to_bytes(), where="x") == plan
    plain = open_run(runs("plain")).plan
    assert plain.execution == PLAIN
    assert b'execution"' not in plain.to_bytes()
    assert Plan.from_bytes(plain.to_bytes(), where="x").sha256 == plain.sha256


def test_the_report_shows_the_real_time_mode(runs: Any) -> None:
    from evalkit.report.render_markdown import render_markdown

    text = render_markdown(build_report([runs("a", "execution.realtime=blend", "execution.delay_ms=100")]))
    assert "Real-time execution" in text
    (row,) = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| Near | blend")]
    assert row[:7] == ["Near", "blend", "100", "2", "2", "0", "4"]
    assert row[9] == "-"  # there is no right arm
    assert "nothing is predicted" in text
    assert "Real-time execution" not in render_markdown(build_report([runs("plain")]))


# ---- X-WAM


def test_nano_joins_by_guidance_in_enough_steps_only() -> None:
    few, enough = (
        XwamPlugin("robosuite").spec(XwamPolicyConfig(num_action_steps=steps, num_video_steps=4)) for steps in (2, 4)
    )
    env = replace(ENV, action_layout=few.action_layouts[0])
    text = refused(execution("guided", 2), few)
    assert "guidance needs 4 denoising steps of actions, and there are 2" in text
    assert "0.21 against 0.09" in text
    assert "num_action_steps=4" in text
    check_execution(execution("guided", 2), env, enough)
    assert "trained without clean first ones" in refused(execution("prefix", 2), enough)


def test_a_checkpoint_states_the_prefix_that_it_was_trained_for() -> None:
    model = replace(NANO, prefix_actions_max=8)
    assert model_from_json(model.to_json()) == model
    assert "prefix_actions_max" not in NANO.to_json()
    recipe = recipe_of("nano", ["prefix_actions_max=8"])
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert "prefix_actions_max" not in recipe_of("nano").to_json()
    with pytest.raises(RecipeError, match="prefix_actions_max=3 has no effect"):
        refuse_unused(recipe_of("uwm-nano", ["prefix_actions_max=3"]), UWM["nano"], started=False)
