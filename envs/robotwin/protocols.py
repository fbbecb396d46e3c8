"""The protocols of RoboTwin's published evaluations, as data.

In: a setting, a seed, an index. Out: the commit, the split of instructions, the noise key, marks of a protocol's name.
Read next: `source.py`, which recognises the commits; `bench.py`, which plans episodes under these protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION

from .instructions import Split
from .source import C3DDFA8, CF47AB5, Commit
from .tasks import SETTINGS

FIRST_SEED = 100_000
"""RoboTwin tries seeds from 100000 (1 + its own seed) upward and evaluates those that its expert solves; 0 is its seed
in every published evaluation."""

PLANNER, RENDERER, SAPIEN = "curobo", "rt", "3.0.0b1"
"""What every published evaluation ran with: RoboTwin's own pins and settings."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to run the 50 tasks.

    Attributes:
        name: As plans and reports show it.
        commit: The commit of RoboTwin.
        seeds: Name of the vetted episodes, which protocols of one commit share; manifests state it.
        manifest: Name of the default file of these episodes.
        action_layout: Frame and units of actions.
        instructions: Split of the instructions in each setting.
        execute_steps: Actions of a chunk that are executed before the policy is asked again; None for any number.
        episodes_per_task: Episodes of each task and setting.
        success_after_steps: Control steps after which a goal must still be met; 0 where the first success counts.
        fixes_noise: Whether the seed of a policy's noise is that of X-WAM's release.
    """

    name: str
    commit: Commit
    seeds: str
    manifest: str
    action_layout: str
    instructions: Mapping[str, Split]
    execute_steps: int | None
    episodes_per_task: int
    success_after_steps: int
    fixes_noise: bool

    def noise_key(self, *, seed: int, index: int) -> str | None:
        """Return the episode's part of the seed of a policy's noise; None where the protocol leaves it open.

        The release hashes "rank_rollout_step", and its client for RoboTwin always states rank 0 and counts the vetted
        episodes: the i-th episodes of all tasks have the same noise. Another `--seed` is another rank.

        Example:
            >>> PROTOCOLS["xwam"].noise_key(seed=0, index=7)
            '0_7'
        """
        return f"{seed}_{index}" if self.fixes_noise else None


_XWAM = Protocol(
    name="robotwin-50/xwam",
    commit=C3DDFA8,
    seeds="robotwin-50",
    manifest="robotwin",
    action_layout=EE_POSE_BASE,
    instructions=dict.fromkeys(SETTINGS, "unseen"),
    execute_steps=32,
    episodes_per_task=100,
    success_after_steps=0,
    fixes_noise=True,
)

PROTOCOLS: dict[str, Protocol] = {
    "xwam": _XWAM,
    "qpos": replace(
        _XWAM, name="robotwin-50/qpos", action_layout=JOINT_POSITION, execute_steps=None, fixes_noise=False
    ),
    "head": replace(
        _XWAM,
        name="robotwin-50-head/xwam",
        commit=CF47AB5,
        seeds="robotwin-50-head",
        manifest="robotwin-head",
        instructions={"clean": "seen", "randomized": "unseen"},
    ),
}
"""Success is the same in all: RoboTwin's own check after every simulation step; the first one ends the episode. Whether
the goal still holds after settling is recorded next to it."""


def marked(
    name: str,
    *,
    planner: str = PLANNER,
    renderer: str = RENDERER,
    shadows: str = "on",
    decimate: str = "none",
    instructions: Split | None = None,
    expert: bool = False,
    sapien: str | None = None,
) -> str:
    """Return a protocol's name with what makes its numbers no scores: it stands in plans, folders and reports.

    Args:
        name: The protocol's name.
        planner: The planner.
        renderer: The renderer.
        shadows: `on` or `off`.
        decimate: `none`, or which parts of the robot are hidden.
        instructions: Split of the instructions, where it is not the protocol's.
        expert: Whether the env publishes the expert's motion.
        sapien: Version of SAPIEN; None where it is not known.

    Example:
        >>> marked("robotwin-50/xwam", planner="cpu", renderer="raster", sapien="3.0.3")
        'robotwin-50/xwam+cpu-planner+raster+sapien-3.0.3'
    """
    marks = {
        f"{planner}-planner": planner != PLANNER,
        renderer: renderer != RENDERER,
        "no-shadows": shadows == "off",
        f"no-{decimate}": decimate != "none",
        f"{instructions}-instructions": instructions is not None,
        "expert": expert,
        f"sapien-{sapien}": sapien not in (None, SAPIEN),
    }
    return "+".join([name, *(mark for mark, applies in marks.items() if applies)])
