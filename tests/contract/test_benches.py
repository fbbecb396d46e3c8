"""What every registered bench must do, whichever simulator is behind it.

Read next: `evalkit/testing.py`, which holds the checks.
"""

from typing import Any

import pytest

from evalkit import testing
from evalkit.contracts import plugins
from evalkit.contracts.env import Bench, ExaminedBench
from evalkit.contracts.errors import EpisodeFault

BENCHES = [*plugins.names(plugins.BENCHES), "tests.doubles.bench:FakeBench"]


STAND_INS = {"robocasa": {"art": "placeholder"}}
"""Settings that do without what few machines have."""


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return plugins.load_bench(request.param)


def light_config(bench: Bench) -> Any:
    """Return settings with which the bench's simulator runs here; skip where it is not installed."""
    if isinstance(bench, ExaminedBench):
        lacking = [f for f in bench.examine(bench.config_type()) if f.needed and not f.ok]
        if lacking:
            pytest.skip(f"{bench.name} is not here: {lacking[0].what}: {lacking[0].remedy}")
    return bench.config_type(**STAND_INS.get(bench.name, {}))


def test_plans_are_explicit_and_stable(bench: Bench) -> None:
    testing.check_plans(bench)


def test_specs_and_launches_are_json(bench: Bench) -> None:
    testing.check_specs(bench)


@pytest.mark.sim
def test_first_frame_is_the_same_in_another_process(bench: Bench) -> None:
    try:
        testing.check_first_frames(bench, light_config(bench))
    except EpisodeFault as fault:
        pytest.fail(fault.reason)


@pytest.mark.sim
def test_states_are_unit_and_absent_arms_zero(bench: Bench) -> None:
    testing.check_states(bench, light_config(bench))
