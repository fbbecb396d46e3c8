"""Benches and policies with their settings, as the command line binds them.

In: a name, settings. Out: what `evalkit.record` and `evalkit.replay` take.
Read next: `evalkit/config.py`.
"""

from typing import Any

from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.plugins import load_bench, load_policy


def bench_of(name: str, **settings: Any) -> BoundBench:
    plugin = load_bench(name)
    return BoundBench(plugin=plugin, config=plugin.config_type(**settings), given=tuple(settings), loaded_as=name)


def policy_of(name: str, **settings: Any) -> BoundPolicy:
    plugin = load_policy(name)
    return BoundPolicy(plugin=plugin, config=plugin.config_type(**settings), given=tuple(settings), loaded_as=name)
