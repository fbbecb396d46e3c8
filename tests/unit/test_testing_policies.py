"""`evalkit check policy` on a policy with one fault at a time: the check that finds it, and what it says.

In: a double with a fault. Out: a verdict per check.
Read next: `evalkit/testing/policies.py`; `tests/contract/test_policies.py` for the policies that are registered.
"""

import re
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.config import bind_policy
from evalkit.testing import Verdict, check_policy, judge, noise_request, policy_checks
from evalkit.testing.replies import check_same
from tests.doubles.faulty_policy import FaultyConfig, FaultyPlugin

CHECKED_ALWAYS = ("requirements", "plugin", "methods", "fits")
FAULTY = "tests.doubles.faulty_policy:FaultyPlugin"
FAILURES = {
    "absent": ("requirements", "Policy 'faulty' lacks weights; download them"),
    "load": ("plugin", "cannot be loaded: RuntimeError: size mismatch"),
    "other_spec": ("plugin", "the loaded policy must have the spec that the plugin states"),
    "no_infer_method": ("methods", "the policy that `make` returns, a FaultyPolicy, has no method `infer`$"),
    "no_reset_method": ("methods", "the policy that `make` returns, a FaultyPolicy, has no method `reset`$"),
    "shape": ("actions", r"^policy 'faulty': actions must have shape \(4, 14\) \(.*\), got \(8, 13\)\.$"),
    "nan": ("actions", "^policy 'faulty': actions hold values that are not finite"),
    "depth_nan": ("prediction", "predicted depth must be finite"),
    "float64": ("actions", "actions must be float32, got float64"),
    "all_frames": ("prediction", r"predicted RGB is \(2, 3"),
    "own_actions": ("prediction", "the reply must repeat the given actions; 28 of 56 numbers differ"),
    "global_noise": ("same seed", "the same request must give the same actions; 12 of 56 numbers differ, by up to"),
    "batch": ("batch", r"must not depend on the other requests of a batch \(actions\); 12 of 56 .* by up to 0.1"),
    "batch_future": ("batch", r"must not depend on the other requests of a batch \(rgb\)"),
    "last_request": ("batch", r"must not depend on the requests of other episodes between its own \(actions\)"),
    "id": ("batch", "must not depend on the episode's id"),
    "first_seen": (
        "reset",
        r"chunk 0 of an episode must be the same after another one under its id and `reset` \(actions",
    ),
    "no_reset": ("reset", "chunk 0 of an episode must be the same after another one under its id"),
    "prediction_acts": ("handles", "a prediction must not change actions"),
    "frames_change_actions": ("handles", "actions must not depend on num_predicted_frames"),
    "late": ("handles", r"must be the same if later requests came before it \(rgb\)"),
    "any_size": ("other envs", "the spec accepts larger images, but the policy does not: ValueError: cannot reshape"),
    "poisoned": ("bad input", "a bad request must not change the actions of later ones; 12 of 56"),
}
DOUBTS = {
    "fast": ("actions", "translations or rotations reach .*; 1 is 0.05 m or 0.5 rad"),
    "gripper": ("actions", "grippers go from 300 to 300; they are -1 to 1, and 1 opens"),
    "depth_below_0": ("prediction", "predicted depth goes down to -.*; it is in metres, and 0 where there is none"),
    "w_below_0": ("prediction", r"predicted quaternions \(w, x, y, z\) have a w of -1; states have w >= 0"),
    "state_mm": ("prediction", "predicted positions reach 300; they are metres in the base frame"),
    "millimetres": ("actions", "positions reach .*; they are metres in the base frame"),
    "depth_mm": ("prediction", "the median of the predicted depth is .*; depth is in metres"),
    "rgb_01": ("prediction", "no predicted colour is above 1"),
    "blind": ("past frames", "the actions do not depend on them"),
    "nowhere": ("fits", "no installed bench fits; .* task: the policy supports only nowhere/Lift"),
}


def verdicts(fault: str) -> dict[str, Verdict]:
    found = judge(policy_checks(bind_policy(FAULTY, [f"policy.faulty.fault={fault}"])))
    return {verdict.name: verdict for verdict in found}


@pytest.mark.parametrize("fault", FAILURES)
def test_the_check_of_a_promise_fails(fault: str) -> None:
    check, said = FAILURES[fault]
    verdict = verdicts(fault)[check]
    assert verdict.state == "failed", verdict
    assert re.search(said, verdict.found), verdict.found
    assert verdict.advice.endswith(".")


@pytest.mark.parametrize("fault", DOUBTS)
def test_what_is_probably_a_mistake_is_doubtful(fault: str) -> None:
    check, said = DOUBTS[fault]
    verdict = verdicts(fault)[check]
    assert verdict.state == "doubtful", verdict
    assert re.search(said, verdict.found), verdict.found


def test_a_policy_without_a_fault_passes() -> None:
    found = verdicts("none")
    steps = found.pop("steps")
    assert (steps.state, steps.found) == ("skipped", "answers a request in one call")
    assert {verdict.state for verdict in found.values()} == {"passed"}, found
    assert found["fits"].found == "robosuite (5 of 7 tasks)"
    assert found["past frames"].found.startswith("2 x 3 x 128 x 128 x 3 uint8")
    assert found["bad input"].found.startswith("a state of NaN: it refuses (The state is not finite.)")
    assert "other arms: evalkit refuses them" in found["other envs"].found


def test_nothing_is_tried_with_a_policy_that_does_not_load() -> None:
    later = [verdict for verdict in verdicts("load").values() if verdict.name not in ("requirements", "plugin")]
    assert {verdict.state for verdict in later} == {"skipped"}
    assert later[0].found == "not checked: `plugin` failed"


@pytest.mark.parametrize(
    ("fault", "check", "still_tried"),
    [
        ("no_infer_method", "methods", []),
        ("nan", "actions", []),
        ("shape", "actions", []),
        ("depth_nan", "prediction", ["past frames", "bad input"]),
    ],
)
def test_what_depends_on_a_failed_check_is_not_tried(fault: str, check: str, still_tried: list[str]) -> None:
    found = list(verdicts(fault).values())
    assert [verdict.name for verdict in found if verdict.state == "failed"] == [check]
    later = found[[verdict.name for verdict in found].index(check) + 1 :]
    assert [verdict.name for verdict in later if verdict.state == "passed"] == still_tried
    skipped = [verdict for verdict in later if verdict.name not in still_tried]
    assert {(verdict.state, verdict.found, verdict.advice) for verdict in skipped} == {
        ("skipped", f"not checked: `{check}` failed", "")
    }
    assert not [verdict for verdict in found if verdict.name != "fits" and "Lift" in verdict.found]


def test_nan_equals_nan_where_replies_are_compared() -> None:
    one = np.array([np.nan, 1, 2], np.float32)
    check_same(one, one.copy(), "the same")
    with pytest.raises(AssertionError, match=r"the same; 1 of 3 numbers differ, where one of them is NaN$"):
        check_same(one, np.array([0, 1, 2], np.float32), "the same")
    with pytest.raises(AssertionError, match=r"the same; 2 of 3 numbers differ, by up to 0.5$"):
        check_same(one, np.array([0, 1, 2.5], np.float32), "the same")


def test_the_same_checks_in_a_test_of_a_package() -> None:
    check_policy(FaultyPlugin())
    with pytest.raises(AssertionError, match="a reply must not depend on the other requests of a batch"):
        check_policy(FaultyPlugin(), FaultyConfig(fault="batch"))
    with pytest.warns(UserWarning, match="prediction: the median of the predicted depth"):
        check_policy(FaultyPlugin(), FaultyConfig(fault="depth_mm"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_policy(FaultyPlugin(), FaultyConfig(fault="none"))


def test_states_of_the_robot_are_checked_others_are_untried() -> None:
    """`robot0_eef_quat` is a unit quaternion of four numbers; the position of a cube needs a simulator."""
    bound = bind_policy(FAULTY, ["policy.faulty.reads=[robot0_eef_quat,robot0_gripper_qpos]"])
    found = {verdict.name: verdict.state for verdict in judge(policy_checks(bound))}
    assert {state for name, state in found.items() if name not in ("fits", "steps")} == {"passed"}, found
    oracle = bind_policy(FAULTY, ["policy.faulty.reads=[robot0_eef_quat,cube_pos]"])
    untried = [verdict for verdict in judge(policy_checks(oracle)) if verdict.state == "untried"]
    assert [verdict.name for verdict in untried] == [name for name in found if name not in (*CHECKED_ALWAYS, "steps")]
    assert all(
        verdict.found.startswith("reads the simulator's state (cube_pos); `evalkit check") for verdict in untried
    )
    with pytest.warns(UserWarning, match="actions is not checked: reads the simulator's state"):
        check_policy(oracle.plugin, oracle.config)
    (noise,) = (noise_request(oracle.spec(), 0, 0).observation.privileged for _ in range(1))
    assert np.linalg.norm(noise["robot0_eef_quat"]) == pytest.approx(1)
    assert noise["robot0_eef_quat"].shape == (4,)


def test_an_untried_policy_is_not_said_to_keep_its_contract() -> None:
    done = CliRunner().invoke(app, ["check", "policy", FAULTY, "policy.faulty.reads=[cube_pos]"])
    assert done.exit_code == 0, done.output
    said = _one_line(done.output)
    assert (
        "only a part can be checked here: 3 passed, 1 doubtful, 9 untried, 1 skipped (actions, prediction, same seed,"
        in said
    )
    assert "keeps its contract" not in said


def _one_line(text: str) -> str:
    """Return text without the line breaks of a narrow terminal."""
    return " ".join(text.split())


def test_the_command_prints_verdicts_and_the_next_step() -> None:
    good = CliRunner().invoke(app, ["check", "policy", FAULTY])
    assert good.exit_code == 0, good.output
    assert "keeps its contract: 13 passed, 1 skipped." in _one_line(good.output)
    bad = CliRunner().invoke(app, ["check", "policy", FAULTY, "policy.faulty.fault=batch"])
    assert bad.exit_code == 1
    assert "failed   batch" in bad.output
    assert "Keep what an episode remembers under its episode_id" in _one_line(bad.output)
    assert "breaks its contract: 12 passed, 1 failed, 1 skipped." in _one_line(bad.output)
    absent = CliRunner().invoke(app, ["check", "policy", FAULTY, "policy.faulty.fault=absent"])
    assert absent.exit_code == 1
    assert "cannot be checked here: 1 failed, 13 skipped." in _one_line(absent.output)
