"""The stepped part of `evalkit check policy` on a small policy with one fault at a time.

In: a policy that answers by passes, with a fault. Out: what the check says.
Read next: `evalkit/testing/stepped.py`; `tests/doubles/stepped.py` for the policy.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from evalkit.contracts.types import PolicyRequest, Prediction
from evalkit.testing.stepped import check_steps
from tests.doubles.stepped import SmallJob, SmallSteps


class Faultless(SmallSteps):
    """The small policy; its requests of noise all have one sentence, so that they share passes."""

    def finish(self, job: SmallJob) -> Prediction:
        self.thread = None  # one thread calls everything here
        return super().finish(job)


class ShortPasses(Faultless):
    """Has no padding: a pass has as many rows as jobs, and the last bits of a product depend on their number."""

    def step(self, jobs: Sequence[SmallJob]) -> list[SmallJob]:
        scale = np.float32(1 + 1e-6 * len(jobs))
        return [replace(job, row_D=job.row_D * scale) for job in super().step(jobs)]


class Spreading(Faultless):
    """Lets a NaN of one row reach all others."""

    def step(self, jobs: Sequence[SmallJob]) -> list[SmallJob]:
        sick = any(np.isnan(job.row_D).any() for job in jobs)
        return [replace(job, row_D=job.row_D * np.nan) if sick else job for job in super().step(jobs)]


class InPlace(Faultless):
    """Changes the numbers of the jobs that it is given."""

    def step(self, jobs: Sequence[SmallJob]) -> list[SmallJob]:
        stepped = super().step(jobs)
        for job in jobs:
            job.row_D[:] *= 2
        return stepped


class OtherSteps(Faultless):
    """Starts from other numbers when it answers in one call."""

    def _infer_seed(self, request: PolicyRequest) -> PolicyRequest:
        return replace(request, noise_seed=request.noise_seed ^ 1)

    def infer(self, requests: Sequence[PolicyRequest]):  # type: ignore[no-untyped-def]
        return super().infer([self._infer_seed(request) for request in requests])


class EndlessJob(SmallJob):
    """A job that counts no pass."""

    @property
    def passes_left(self) -> int:
        return 5 if self.passes < 5 else 0


class Endless(Faultless):
    def prepare(self, request: PolicyRequest) -> SmallJob:
        return EndlessJob(request=request, row_D=super().prepare(request).row_D)


def test_a_policy_that_keeps_its_promises_passes() -> None:
    said = check_steps(Faultless())
    assert said == (
        "5 passes, 2 without a prediction; the same as `infer`; the same in the company of others at other steps and "
        "of requests of NaN and 1e30"
    )
    assert check_steps(Faultless(width=1)).endswith("no company at width 1")


@pytest.mark.parametrize(
    ("policy", "promise"),
    [
        (ShortPasses(), "a reply must not depend, to the bit, on others at other steps in its passes"),
        (Spreading(), "a reply must not depend, to the bit, on requests of NaN and 1e30 in its passes"),
        (InPlace(), "passes must give what `infer` gives|a pass must leave its jobs as they were"),
        (OtherSteps(), "passes must give what `infer` gives"),
        (Endless(), "5 passes are left after 5"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, SmallSteps) else "",
)
def test_a_broken_promise_is_named(policy: SmallSteps, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_steps(policy)
