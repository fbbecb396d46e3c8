"""Settings that cannot work are refused when the plan is made.

In: overrides. Out: the sentence of each.
Read next: `evalkit/contracts/limits.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evalkit.config import load_config
from evalkit.contracts import plugins
from evalkit.contracts.errors import BadConfig
from evalkit.store.plan import Plan, make_plan


def config(bench: str, policy: str, overrides: Sequence[str]) -> object:
    return load_config(plugins.load_bench(bench), plugins.load_policy(policy), overrides)


def plan_of(override: str) -> Plan:
    """Return a plan of the policy xwam."""
    loaded = load_config(plugins.load_bench("robosuite"), plugins.load_policy("xwam"), [override])
    return make_plan(loaded.bench, loaded.policy, tasks=["Lift"], num_episodes=1)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("run.workers=0", "run.workers must be from 1 to 1024, got 0."),
        ("run.workers=-2", "run.workers must be from 1 to 1024, got -2."),
        ("run.workers=1000000", "run.workers must be from 1 to 1024"),
        ("run.max_attempts=0", "run.max_attempts must be from 1"),
        ("run.start_timeout_s=0", "run.start_timeout_s must be from 0.01 to 86400 s"),
        ("run.reset_timeout_s=nan", "run.reset_timeout_s must be from 0.01 to 86400 s, got nan."),
        ("run.chunk_timeout_s=inf", "run.chunk_timeout_s must be from 0.01 to 86400 s, got inf."),
        ("run.episodes_per_worker=-1", "run.episodes_per_worker must be from 1"),
        ("run.stop_after_equal_errors=-1", "run.stop_after_equal_errors must be from 0"),
        ("bench.robosuite.image_hw_px=[8,128]", "image_hw_px must be from 16 to 2048 pixels each way, got 8."),
        ("bench.robosuite.image_hw_px=[128,5000]", "image_hw_px must be from 16 to 2048 pixels each way, got 5000."),
        ("bench.robosuite.image_hw_px=[128]", "image_hw_px must be height and width, got [128]."),
        ("bench.robosuite.antialias_samples=-1", "antialias_samples must be 0, 2, 4, 8 or 16, got -1."),
        ("bench.robosuite.antialias_samples=3", "antialias_samples must be 0, 2, 4, 8 or 16, got 3."),
        ("bench.robosuite.mesh_cell_mm=-8", "mesh_cell_mm must be from 0 to 1000 mm"),
        ("bench.robosuite.mesh_cell_mm=nan", "mesh_cell_mm must be from 0 to 1000 mm, got nan."),
        ("bench.robosuite.gl=glfw", "gl must be auto, egl or osmesa, got glfw."),
        ("bench.robocasa.image_px=5000", "image_px must be from 16 to 2048 pixels, got 5000."),
        ("bench.robocasa.image_px=15", "image_px must be from 16 to 2048 pixels, got 15."),
        ("bench.robocasa.antialias_samples=-1", "antialias_samples must be 0, 2, 4, 8 or 16, got -1."),
        ("bench.robocasa.protocol=xwm", "protocol must be standard, xwam or cosmos, got xwm."),
        ("bench.robocasa.art=none", "art must be real or placeholder, got none."),
        ("bench.robocasa.gl=glfw", "gl must be auto, egl or osmesa, got glfw."),
    ],
)
def test_a_value_that_cannot_work_is_refused(override: str, sentence: str) -> None:
    bench = "robocasa" if "robocasa" in override else "robosuite"
    with pytest.raises(BadConfig) as refusal:
        config(bench, "hold", [override])
    assert sentence in str(refusal.value)
    assert override.partition("=")[0] in str(refusal.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("policy.xwam.threads=0", "policy.xwam.threads must be from 1 to 1024, got 0."),
        ("policy.xwam.guidance=-1", "policy.xwam.guidance must be from 0 to 100, got -1.0."),
        ("policy.xwam.guidance=1", "policy.xwam.guidance must be 0 or above 1, got 1.0: guided velocities are"),
        ("policy.xwam.guidance=0.3", "a smaller one weakens the prompt."),
        ("policy.xwam.guidance=nan", "policy.xwam.guidance must be finite, got nan."),
        ("policy.xwam.guidance=inf", "policy.xwam.guidance must be finite, got inf."),
        ("policy.xwam.init_seed=-1", "policy.xwam.init_seed must be from 0"),
        ("policy.xwam.device=foo", "policy.xwam.device=foo cannot be used: it must be cpu, cuda"),
        ("policy.xwam.device=cuda:x", "policy.xwam.device=cuda:x cannot be used"),
        ("policy.xwam.precision=half", "policy.xwam.precision must be one of"),
        ("policy.xwam.num_video_steps=1001", "policy.xwam.num_video_steps must be from 1 to 1000, got 1001."),
        ("policy.xwam.num_video_steps=0", "policy.xwam.num_video_steps must be from 1 to 1000, got 0."),
        ("policy.xwam.num_action_steps=9", "no more for actions than for video"),
        ("policy.xwam.execute_steps=33", "policy.xwam.execute_steps must be 1 to 32, got 33."),
        ("policy.xwam.text_cache=/etc/passwd", "policy.xwam.text_cache must be a folder, got the file /etc/passwd."),
        ("policy.xwam.checkpoint=/no/such", "/no/such"),
    ],
)
def test_a_setting_of_xwam_that_cannot_work_makes_no_plan(override: str, sentence: str) -> None:
    with pytest.raises(BadConfig) as refusal:
        plan_of(override)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    "override",
    [
        *(f"bench.robosuite.antialias_samples={samples}" for samples in (0, 2, 4, 8, 16)),
        "bench.robosuite.image_hw_px=[16,2048]",
        "bench.robosuite.image_hw_px=[33,97]",
        "bench.robosuite.mesh_cell_mm=0",
        "bench.robocasa.image_px=null",
        "run.chunk_timeout_s=0.5",
        "run.stop_after_equal_errors=0",
    ],
)
def test_a_value_at_its_bound_is_taken(override: str) -> None:
    assert config("robocasa" if "robocasa" in override else "robosuite", "hold", [override])
