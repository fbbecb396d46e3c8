"""Specs: a mismatch names both sides, and nothing is bent to fit."""

from dataclasses import replace

import numpy as np
import pytest

from evalkit.contracts.errors import EpisodeFault, SpecMismatch
from evalkit.contracts.spec import EnvSpec, check, check_actions, check_observation
from evalkit.contracts.types import Observation
from tests.doubles.bench import FakeEnv, fake_spec
from tests.doubles.policy import FakePolicyConfig, FakePolicyPlugin

ENV = fake_spec("Near")
POLICY = FakePolicyPlugin().spec(FakePolicyConfig())


def test_a_spec_survives_json() -> None:
    import json

    assert EnvSpec.from_json(json.loads(json.dumps(ENV.to_json()))) == ENV


def test_what_fits_passes() -> None:
    check(ENV, POLICY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": ("static", "wrist")}, r"views: the env gives \('static', 'static', 'wrist'\), the policy needs"),
        ({"image_hw_px": (64, 64)}, r"image size .*\(16, 24\), the policy needs \(64, 64\)"),
        ({"arms": ("left", "right")}, "arms"),
        ({"control_hz": 10.0}, "control rate"),
        ({"action_layouts": ("joints",)}, "the env takes 'osc_delta_base'"),
        ({"privileged_keys": ("cube",)}, r"the policy reads \['cube'\]"),
        ({"execute_steps": 9}, "executes 9 of 8"),
        ({"num_future_frames": 3}, "beyond its chunk"),
        ({"env_ids": ("fake/Far",)}, "supports only fake/Far"),
    ],
)
def test_a_mismatch_names_both_sides(change: dict, message: str) -> None:
    with pytest.raises(SpecMismatch, match=message) as caught:
        check(ENV, replace(POLICY, **change))
    assert "fake/Near and policy 'fake' do not fit" in str(caught.value)


def test_two_mismatches_are_both_named() -> None:
    with pytest.raises(SpecMismatch, match=r"arms.*; .*control rate"):
        check(ENV, replace(POLICY, arms=("right",), control_hz=1.0))


def observation(**change: np.ndarray) -> Observation:
    env = FakeEnv(task="Near", fault="none", fault_seed=0, step_s=0)
    env.begin(seed=0, max_steps=1)
    return Observation(**{**env.observe(render=True), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rgb": np.zeros((3, 16, 25, 3), np.uint8)},
            r"rgb must be uint8 \(3, 16, 24, 3\), got uint8 \(3, 16, 25, 3\)",
        ),
        ({"depth": np.zeros((3, 16, 24))}, "depth must be float32"),
        ({"depth": np.full((3, 16, 24), np.inf, np.float32)}, "depth holds values that are not finite"),
        ({"depth": np.full((3, 16, 24), -1, np.float32)}, "negative"),
        ({"proprio": np.zeros(15, np.float32)}, "proprio"),
        ({"T_base_cam": np.zeros((2, 4, 4))}, "T_base_cam"),
    ],
)
def test_a_broken_promise_of_the_env_is_its_fault(change: dict, message: str) -> None:
    check_observation(observation(), ENV, rendered=True)
    with pytest.raises(EpisodeFault, match=message) as caught:
        check_observation(observation(**change), ENV, rendered=True)
    assert caught.value.blame == "env"


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((8, 7), np.float32), r"shape \(8, 14\) .*, got \(8, 7\)"),
        (np.zeros((8, 14)), "float32"),
        (np.full((8, 14), np.nan, np.float32), "not finite"),
        (np.ones((8, 14), np.float32), "right arm"),
        (None, "NoneType"),
    ],
)
def test_bad_actions_are_the_policys_fault(actions: np.ndarray, message: str) -> None:
    check_actions(np.zeros((8, 14), np.float32), ENV, POLICY)
    with pytest.raises(EpisodeFault, match=message) as caught:
        check_actions(actions, ENV, POLICY)
    assert caught.value.blame == "policy"
