"""What every registered policy must do, on observations that no simulator made.

Read next: `evalkit/testing/`, which holds the checks.
"""

import pytest

from evalkit import testing
from evalkit.config import bind_policy
from evalkit.contracts import plugins
from evalkit.contracts.errors import UnknownName
from evalkit.contracts.policy import Policy

NEED_A_SIMULATOR = {"expert_replay", "scripted"}  # they read a simulator's state; tests/sim runs them
NEED_A_SERVER = {"remote"}  # tests/unit/test_remote_policy.py runs it against one
NEED_A_RECORDING = {"replay"}  # tests/unit/test_baselines_replay.py gives it one
NEED_A_PACKAGE = {"two_stage"}  # tests/unit/test_two_stage.py gives it another estimator
NEED_MORE = NEED_A_SIMULATOR | NEED_A_SERVER | NEED_A_RECORDING | NEED_A_PACKAGE
REGISTERED = [name for name in plugins.names(plugins.POLICIES) if name not in NEED_MORE]
POLICIES = [*REGISTERED, "tests.doubles.policy:FakePolicyPlugin"]


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return testing.load_checked_policy(plugins.load_policy(request.param))


def test_replies_are_what_the_spec_promises(policy: Policy) -> None:
    testing.check_replies(policy)


def test_actions_do_not_depend_on_what_else_was_asked(policy: Policy) -> None:
    testing.check_independence(policy)


def test_imagining_changes_no_action(policy: Policy) -> None:
    testing.check_prediction_is_passive(policy)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(UnknownName, match=r"Unknown policy 'hodl'. Did you mean 'hold'"):
        plugins.load_policy("hodl")


@pytest.mark.parametrize("name", REGISTERED)
def test_every_policy_passes_the_authors_checks(name: str) -> None:
    verdicts = list(testing.judge(testing.policy_checks(bind_policy(name))))
    if verdicts[0].state == "failed":
        pytest.skip(verdicts[0].found)
    assert [verdict for verdict in verdicts if verdict.state in ("failed", "doubtful")] == []
