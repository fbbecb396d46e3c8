"""The policy `remote` in RoboTwin's own scenes: a server that answers with the joints or poses that it was sent.

In: a RoboTwin checkout, its interpreter, vetted seeds. Out: a verdict on states and actions of the adapters: if frame,
order, unit or gripper were wrong on the way there and back, the arms would move.
Read next: `test_robotwin_policies.py`, for the other policies; `tests/unit/test_remote_adapters.py`.

Planner `cpu` and the rasterizer without shadows, so no number is a RoboTwin score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.expert_replay import ARMS
from baselines.remote import adapter as adapters
from baselines.remote.plausible import check_numbers
from baselines.remote.policy import RemotePlugin, RemotePolicy
from baselines.remote.probe import probe_observation
from baselines.remote.settings import RemoteConfig
from baselines.remote.starts import FirstActions, check_start
from evalkit import load_bench, make_plan, run_plan
from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.manifest import write_manifest
from evalkit.contracts.spec import JOINT_POSITION
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.store.run_folder import open_run
from tests.doubles.policy_server import serving
from tests.doubles.robotwin import LISTS, measured, needs_vetted_lists, root
from xwam.robots.axes import pose_actions

pytest.importorskip("websockets", reason="websockets is not installed (pip install '.[remote]')")
pytestmark = [*needs_vetted_lists(), pytest.mark.timeout(900)]

CHUNK_LEN = 8


def joints(observation: Mapping[str, Any]) -> Any:
    return {"actions": np.tile(observation["state"], (CHUNK_LEN, 1))}


def poses(observation: Mapping[str, Any]) -> Any:
    names = [f"{arm}_ee_{part}" for arm in ("left", "right") for part in ("pose", "joint_state")]
    return [{name: observation["state"][name] for name in names}] * CHUNK_LEN


class Noting(RemotePlugin):
    """The plugin, noting the measured states of every request."""

    def __init__(self) -> None:
        super().__init__("robotwin")
        self.states: list[np.ndarray] = []

    def make(self, config: RemoteConfig) -> RemotePolicy:
        policy = super().make(config)
        assert isinstance(policy, RemotePolicy)
        infer = policy.infer

        def noting(requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
            self.states += [request.observation.proprio for request in requests]
            return infer(requests)

        policy.infer = noting  # type: ignore[method-assign]
        return policy

    def for_bench(self, bench: str) -> RemotePlugin:
        return self


def test_no_motion_of_the_expert_is_refused() -> None:
    """Each state of the expert as the first action after the state before, and the first 64 of them."""
    motion = measured("expert_motion", str(root()), "click_bell", 100000)
    states, joints = np.array(motion["states"], np.float32), np.array(motion["joints"])
    actions = {"xpolicylab-robotwin-ee": pose_actions(states, ARMS), "pi0-robotwin": joints}
    assert len(states) == len(joints) > 60
    for name, each in actions.items():
        adapter, first = adapters.load(name), FirstActions()
        first.add(each, adapter)
        for now in range(len(each) - 1):
            probe = probe_observation(adapter)
            seen = replace(probe, proprio=states[now], privileged={JOINT_POSITION: joints[now]})
            check_start(each[now + 1 : now + 2], adapter, seen)
            check_numbers(each[now + 1 : now + 2], adapter)


@pytest.mark.parametrize(
    ("adapter", "protocol", "reply", "dialect"),
    [("pi0-robotwin", "qpos", joints, "openpi"), ("xpolicylab-robotwin-ee", "xwam", poses, "xpolicylab")],
)
def test_what_was_sent_moves_no_arm(tmp_path: Path, adapter: str, protocol: str, reply: Any, dialect: str) -> None:
    manifest = tmp_path / "robotwin.json"
    write_manifest(manifest, load_bench("robotwin").plugin.read_vetted_list(LISTS / "demo_clean.json"))  # type: ignore[attr-defined]
    bench = load_bench(
        "robotwin", manifest=str(manifest), planner="cpu", renderer="raster", shadows="off", protocol=protocol
    )
    plugin = Noting()
    with serving(reply, dialect=dialect) as server:
        config = RemoteConfig(url=server.url, adapter=adapter, chunk_len=CHUNK_LEN)
        policy = BoundPolicy(plugin=plugin, config=config)
        plan = make_plan(bench, policy, tasks=["click_bell"], num_episodes=1, max_steps=2 * CHUNK_LEN + 1)
        run_plan(plan, bench, policy, tmp_path / "run", settle_steps=2, max_attempts=1)
    (record,) = open_run(tmp_path / "run").records()
    assert (record.outcome, record.steps, record.num_chunks) == ("failure", 2 * CHUNK_LEN + 1, 3), record.reason
    np.testing.assert_allclose(plugin.states[-1], plugin.states[0], atol=2e-3)
