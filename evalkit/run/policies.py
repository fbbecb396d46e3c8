"""Where the policy of a run lives: in the run's process, or in processes of its own.

In: a policy with its settings, the settings of the run. Out: what lanes ask.
Read next: `evalkit/serve/pool.py` and `evalkit/serve/process.py`; `executors/threads.py`, which hosts a policy here.

A process of its own costs 0.1 GB of memory and a second of CPU time at its start (nano X-WAM), and a few milliseconds
for each chunk with its prediction. It buys that a hang or a crash of the policy ends neither the run nor other
episodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import cycle, islice

from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.errors import BadConfig, PluginRaised
from evalkit.contracts.policy import Policy
from evalkit.run.settings import RunSettings
from evalkit.serve.pool import PolicyPool
from evalkit.serve.process import PolicyLaunch, ProcessLimits
from evalkit.store.run_folder import RunFolder

REQUESTS_PER_LANE = 4
"""Most requests under way in the policy per lane: the present one, and those of episodes that ended in a fault."""


@contextmanager
def loaded_policy(policy: BoundPolicy, folder: RunFolder, settings: RunSettings) -> Iterator[Policy | PolicyPool]:
    """Load a policy; its processes end with the block.

    Raises:
        EvalkitError: If it cannot be loaded; if its code raises, the run's `logs/policy.log` has the traceback.
    """
    if not has_own_process(policy, settings):
        yield _loaded(policy, folder)
        return
    limits = ProcessLimits(start_s=settings.policy_start_timeout_s, reply_s=settings.policy_timeout_s)
    pool = PolicyPool(_launches(policy, folder, settings), limits)
    try:
        yield pool
    finally:
        pool.end()


@contextmanager
def policy_of_episode(policy: Policy | PolicyPool) -> Iterator[Policy]:
    """Give the policy that runs one episode."""
    if isinstance(policy, PolicyPool):
        with policy.lease() as leased:
            yield leased
    else:
        yield policy


def has_own_process(policy: BoundPolicy, settings: RunSettings) -> bool:
    """Return whether a policy runs in processes of its own.

    By default a policy with a setting `device` does: it loads a network and calls a GPU's driver.
    """
    if settings.policy_process == "auto":
        asked = settings.servers > 1 or bool(settings.server_devices) or settings.policy_python is not None
        return asked or has_device(policy)
    return bool(settings.policy_process)


def has_device(policy: BoundPolicy) -> bool:
    """Return whether a policy has a setting `device`."""
    return "device" in {entry.name for entry in fields(policy.config)}


def _loaded(policy: BoundPolicy, folder: RunFolder) -> Policy:
    try:
        return policy.load()
    except PluginRaised as error:
        where = folder.log_traceback("load", error.__cause__ or error, "policy.log")
        raise PluginRaised(f"{str(error).rstrip('.')}{where}.") from error.__cause__


def _launches(policy: BoundPolicy, folder: RunFolder, settings: RunSettings) -> list[PolicyLaunch]:
    """Return how to start each process; raises BadConfig if devices are given to a policy that has none."""
    if settings.server_devices and not has_device(policy):
        raise BadConfig(f"run.server_devices cannot be used: policy '{policy.name}' has no setting 'device'.")
    devices = islice(cycle(settings.server_devices or (None,)), settings.servers)
    return [
        PolicyLaunch.of(
            policy if device is None else replace(policy, config=replace(policy.config, device=device)),
            bench=folder.plan.bench.name,
            log_path=folder.path / "logs" / f"policy-{number}.log",
            max_requests=REQUESTS_PER_LANE * settings.workers,
            **({} if settings.policy_python is None else {"python": settings.policy_python}),
        )
        for number, device in enumerate(devices)
    ]
