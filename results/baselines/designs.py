"""The rows of the nano table: designs, ways of acting, equal size and equal compute.

In: costs of training steps. Out: training steps of each design; where results lie.
Read next: `table.py`, which fills the folders; `records.py`, which reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BASE = "xwam"
"""The design whose number of training steps is given."""

SAME_SIZE, SAME_COMPUTE = 0.05, 0.02
"""Largest relative difference of parameters, and of training operations, from those of the base."""

LATENCY_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Design:
    """One design of network, and how it differs in training.

    Attributes:
        name: Name of its family.
        recipe: Changes to its recipe.
    """

    name: str
    recipe: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Return the model to train."""
        return f"{self.name}/nano"


DESIGNS = (
    Design(name=BASE),
    Design(name="uwm"),
    Design(name="dreamzero", recipe=("encode_once=false",)),  # its latents would need 220 kB a control step
    Design(name="joint_attention"),
    Design(name="video_in_training"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: a way of acting of one design.

    Attributes:
        title: Name in the table.
        design: Name of the design.
        settings: Settings of its policy.
        blind: Whether it is a blind control.
        executed: Actions of a chunk that are executed.
        chunk: Control steps between the predictions of a recording.
        stride: Control steps between predicted frames; 0 if it predicts none.
        takes_actions: Whether it predicts the outcome of given actions.
    """

    title: str
    design: str
    settings: tuple[str, ...] = ()
    blind: bool = False
    executed: int = 8
    chunk: int = 32
    stride: int = 4
    takes_actions: bool = True

    @property
    def policy(self) -> str:
        """Return the name of its policy."""
        return self.design

    @property
    def predicts(self) -> bool:
        """Return whether it predicts images."""
        return self.stride > 0

    @property
    def folder(self) -> str:
        """Return the name of its folders."""
        way = "-".join(change.replace("=", "-") for change in self.settings)
        return "-".join(part for part in (self.design, way, "blind" if self.blind else "") if part)


_SEEING = (
    Row(title="X-WAM", design="xwam"),
    Row(title="UWM, joint", design="uwm", settings=("act=joint", "num_steps=3")),
    Row(title="UWM, marginal", design="uwm", settings=("act=marginal", "num_steps=3")),
    Row(title="DreamZero", design="dreamzero", chunk=8, stride=1, takes_actions=False),
    Row(title="joint attention", design="joint_attention"),
    Row(title="video in training only", design="video_in_training", stride=0, takes_actions=False),
)

ROWS = tuple(
    Row(**(vars(row) | {"title": row.title + (", blind" if blind else ""), "blind": blind}))
    for row in _SEEING
    for blind in (False, True)
)


class Paths(NamedTuple):
    """Where results lie."""

    out: Path

    def cost(self, design: str) -> Path:
        """Return the file with the cost of a training step."""
        return self.out / f"cost-{design}.json"

    def training(self, design: str, *, blind: bool) -> Path:
        """Return the folder of a training."""
        return self.out / "trainings" / (f"{design}-blind" if blind else design)

    def run(self, row: Row) -> Path:
        """Return the folder of a run."""
        return self.out / "runs" / row.folder

    def scores(self, row: Row) -> Path:
        """Return the folder of scored predictions."""
        return self.out / "scores" / row.folder

    def latency(self, row: Row, index: int) -> Path:
        """Return the folder of one measurement of latency."""
        return self.out / "latency" / f"{row.folder}-{index}"

    @property
    def unseen(self) -> Path:
        """Return the demonstrations to predict."""
        return self.out / "unseen"

    @property
    def branches(self) -> Path:
        """Return the ground truth of other actions."""
        return self.out / "branches"


# ---- equal size, equal compute


def check_parameters(parameters: Mapping[str, float]) -> None:
    """Raise SystemExit unless every design has as many parameters as the base, within 5 %.

    Example:
        >>> check_parameters({"xwam": 100, "uwm": 104})
    """
    for name, count in parameters.items():
        if abs(count / parameters[BASE] - 1) > SAME_SIZE:
            raise SystemExit(
                f"{name}/nano has {count:,.0f} parameters, {BASE}/nano {parameters[BASE]:,.0f}: more than "
                f"{SAME_SIZE:.0%} apart; change its configuration."
            )


def match_steps(flops: Mapping[str, float], base_steps: int) -> dict[str, int]:
    """Return the training steps of each design that cost as many operations as those of the base.

    Raises:
        SystemExit: If whole steps cannot come within 2 % of it.

    Example:
        >>> match_steps({"xwam": 10.0, "dreamzero": 14.0}, 700)
        {'xwam': 700, 'dreamzero': 500}
    """
    budget = flops[BASE] * base_steps
    steps = {name: max(1, round(budget / cost)) for name, cost in flops.items()}
    for name, count in steps.items():
        if abs(count * flops[name] / budget - 1) > SAME_COMPUTE:
            raise SystemExit(
                f"{count} steps of {name} cost {count * flops[name] / budget:.3f} of the budget, which is further than "
                f"{SAME_COMPUTE:.0%} from it; give more --steps."
            )
    return steps
