"""Figures `act_vs_before` and `act_vs_before_bf16`: nano's time to its actions, next to another checkout.

In: a checkout that runs in this interpreter or has its own environment in `.venv`. Out: two figures.
Read next: `xwam/serving/engine_policy.py`, which is measured; `checkout.py`, how code of another checkout runs.

Each side is a process that holds nano and answers the same request; they take turns, and the CPU time of each answer
counts. In float32 both must give the same actions to 1e-5. In bfloat16 the other side is the faster of its two types,
so that the figure is what a user gains who chooses bfloat16; the actions of both builds in bfloat16 must be equally far
from those in float32, up to a factor of 2.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tests.bench.checkout import ROOT
from tests.bench.figure import Figure, NotMeasurable
from xwam.network.processor import multiplies_bfloat16

ROUNDS, ANSWERS = 25, 3
ACTION_TOLERANCE = 1e-5
ANSWER = """
import json, sys, time
from evalkit.testing import noise_request
from xwam.policy import XwamPlugin, XwamPolicyConfig
policy = XwamPlugin("robosuite").make(XwamPolicyConfig(checkpoint="nano", precision=sys.argv[1]))
request = noise_request(policy.spec, 0, 0)
print(json.dumps(policy.infer([request])[0].actions.tolist()), flush=True)
for line in sys.stdin:
    begun = time.process_time()
    for _ in range(int(line)):
        policy.infer([request])
    print(time.process_time() - begun, flush=True)
"""


class Side:
    """A process that answers with the code of a checkout, in one type.

    Attributes:
        actions: Its first answer.
        seconds: CPU time of an answer in each round.
    """

    def __init__(self, checkout: Path, precision: str) -> None:
        own = checkout / ".venv/bin/python"
        self._process = subprocess.Popen(
            [str(own) if own.exists() else sys.executable, "-c", ANSWER, precision],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.actions = np.array(self._answer())
        self.seconds: list[float] = []

    def answer(self, times: int) -> float:
        """Return the CPU time of an answer, the mean of some."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return float(self._answer()) / times

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A side ended with exit code {self._process.wait()}; its error stands above.")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


@functools.cache
def measure(before: Path) -> dict[str, Figure]:
    """Measure all sides in turn, compare their actions, and return the figures by name.

    Args:
        before: The other checkout.
    """
    types = ("float32", "bfloat16") if multiplies_bfloat16() else ("float32",)
    with ExitStack() as stack:
        sides = {
            (name, kind): stack.enter_context(Side(checkout, kind))
            for kind in types
            for name, checkout in (("now", ROOT), ("before", before.resolve()))
        }
        for round_idx in range(ROUNDS + 1):
            for side in sides.values() if round_idx % 2 else reversed(sides.values()):
                seconds = side.answer(ANSWERS)
                if round_idx:  # the first round warms up
                    side.seconds.append(seconds)
    check_actions({key: side.actions for key, side in sides.items()})
    seconds_of = {key: side.seconds for key, side in sides.items()}
    figures = {"act_vs_before": _figure("act_vs_before", "<= 0.90", seconds_of, "float32", ("float32",))}
    if "bfloat16" in types:
        figures["act_vs_before_bf16"] = _figure("act_vs_before_bf16", "<= 0.65", seconds_of, "bfloat16", types)
    return figures


def check_actions(actions: dict[tuple[str, str], np.ndarray]) -> None:
    """Raise AssertionError unless both sides act the same in float32, and are as exact as each other in bfloat16."""
    exact = actions["before", "float32"]
    np.testing.assert_allclose(actions["now", "float32"], exact, atol=ACTION_TOLERANCE, rtol=0)
    if ("now", "bfloat16") in actions:
        now, then = (np.sqrt(np.square(actions[name, "bfloat16"] - exact).mean()) for name in ("now", "before"))
        assert now <= 2 * then, f"in bfloat16, actions are off by {now:.2e}, before by {then:.2e}"


def _figure(
    name: str, goal: str, seconds: dict[tuple[str, str], list[float]], now: str, others: tuple[str, ...]
) -> Figure:
    """Return the median ratio of our side to the faster of the others."""
    medians = {kind: statistics.median(seconds["before", kind]) for kind in others}
    fastest = min(medians, key=lambda kind: medians[kind])
    ours, theirs = seconds["now", now], seconds["before", fastest]
    return Figure(
        name=name,
        value=statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        unit=f"CPU time to the actions, now in {now} / before in {fastest}",
        goal=goal,
        sides={"now": 1e3 * statistics.median(ours)} | {f"before, {kind}": 1e3 * medians[kind] for kind in others},
        side_unit="ms",
    )


def _named(name: str, before: Path) -> Figure:
    figures = measure(before)
    if name not in figures:
        raise NotMeasurable("this CPU does not multiply bfloat16 (AVX512-BF16)")
    return figures[name]


FIGURES = {name: functools.partial(_named, name) for name in ("act_vs_before", "act_vs_before_bf16")}
"""They take the checkout to compare with; both come from the same processes."""
