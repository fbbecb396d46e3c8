"""Which executor carries a run: `local` or `ray`.

In: its name, a policy with its settings, the settings of the run. Out: what a session needs of it.
Read next: `threads.py` and `ray.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.limits import check_choice
from evalkit.contracts.policy import Policy
from evalkit.run.executors import Executor, NoteWorker
from evalkit.run.executors.threads import Threads
from evalkit.run.lane import Job
from evalkit.run.policies import loaded_policy
from evalkit.run.settings import RunSettings
from evalkit.serve.pool import PolicyPool
from evalkit.store.run_folder import RunFolder

EXECUTIONS = ("local", "ray")

MakeExecutor = Callable[[Job, NoteWorker], Executor]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a session is carried out.

    Attributes:
        policy: What lanes ask.
        make_executor: Makes the executor of a job.
        facts: What `run.json` holds about it; empty on one machine.
    """

    policy: Policy | PolicyPool
    make_executor: MakeExecutor = Threads
    facts: Mapping[str, Any] = field(default_factory=dict)


def check_execution(name: str) -> None:
    """Raise BadConfig for a name that is not in `EXECUTIONS`, or if its package is missing."""
    check_choice("--execution", name, EXECUTIONS)
    if name == "ray":
        import evalkit.run.executors.ray  # noqa: F401


@contextmanager
def executing(name: str, policy: BoundPolicy, folder: RunFolder, settings: RunSettings) -> Iterator[Execution]:
    """Load a policy where lanes can ask it; what was started for it ends with the block.

    Raises:
        BadConfig: If there is no such executor, cluster or device.
        EvalkitError: If the policy cannot be loaded.
    """
    check_execution(name)
    if name == "local":
        with loaded_policy(policy, folder, settings) as loaded:
            yield Execution(policy=loaded)
        return
    from evalkit.run.executors.ray import Ray, ray_cluster
    from evalkit.run.executors.ray_policy import ray_policies

    with ray_cluster(settings.ray_address) as cluster, ray_policies(policy, folder.plan.bench.name, settings) as found:
        facts = {"execution": name, "cluster": cluster}
        yield Execution(policy=found[0], make_executor=partial(Ray, policies=found), facts=facts)
