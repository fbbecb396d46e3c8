"""Benches and policies with their settings, as the command line makes them of overrides.

In: a name, settings. Out: what `evalkit.record` and `evalkit.replay` take.
Read next: `evalkit/record/plan.py`.
"""

from typing import Any

from evalkit.contracts.plugins import load_bench, load_policy
from evalkit.record.plan import Configured


def bench_of(name: str, **settings: Any) -> Configured:
    return Configured(name=name, config=load_bench(name).config_type(**settings), given=tuple(settings))


def policy_of(name: str, **settings: Any) -> Configured:
    return Configured(name=name, config=load_policy(name).config_type(**settings), given=tuple(settings))
