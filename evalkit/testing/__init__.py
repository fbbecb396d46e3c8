"""The contracts of benches and policies as checks, for tests of any package and for `evalkit check`.

In: a plugin, perhaps with a config. Out: nothing, or what the plugin must do; or a verdict per check.
Read next: `policies.py` and `benches.py`; docs/write_a_policy.md and docs/write_a_bench.md, which call them.
"""

from evalkit.testing.benches import bench_checks, check_bench
from evalkit.testing.envs import (
    check_cameras,
    check_facts,
    check_first_frames,
    check_plans,
    check_rendering,
    check_settling,
    check_specs,
    check_states,
    check_vetting,
)
from evalkit.testing.policies import check_policy, policy_checks
from evalkit.testing.replies import (
    check_independence,
    check_prediction,
    check_prediction_is_passive,
    check_replies,
    load_checked_policy,
)
from evalkit.testing.requests import ask, env_for, noise_request
from evalkit.testing.suite import Check, Verdict, judge

__all__ = [
    "Check",
    "Verdict",
    "ask",
    "bench_checks",
    "check_bench",
    "check_cameras",
    "check_facts",
    "check_first_frames",
    "check_independence",
    "check_plans",
    "check_policy",
    "check_prediction",
    "check_prediction_is_passive",
    "check_rendering",
    "check_replies",
    "check_settling",
    "check_specs",
    "check_states",
    "check_vetting",
    "env_for",
    "judge",
    "load_checked_policy",
    "noise_request",
    "policy_checks",
]
