"""Runs XPolicyLab's own unmodified policy server around a model that holds; in an interpreter with its packages.

In: the root of a checkout of XPolicyLab. Out: a server whose URL is printed.
Read next: `tests/unit/test_remote_partner.py`, which runs it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np

sys.path.insert(0, sys.argv[1])
from client_server.ws.model_server import PolicyServer, PolicyServerConfig

SIZES = {"left_arm_joint_state": 6, "left_ee_joint_state": 1, "right_arm_joint_state": 6, "right_ee_joint_state": 1}


class Hold:
    """Answers with the joints that it was sent; fails where the sentence says so."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def update_obs(self, observation: dict[str, Any]) -> None:
        """Take an observation; its parts must have the types and shapes that policies of XPolicyLab read."""
        for name, size in SIZES.items():
            assert observation["state"][name].shape == (size,), name
            assert observation["state"][name].dtype == np.float32, name
        for camera in ("cam_head", "cam_left_wrist", "cam_right_wrist"):
            image = observation["vision"][camera]["color"]
            assert image.shape == (240, 320, 3), camera
            assert image.dtype == np.uint8, camera
        if observation["instruction"] == "fail":
            raise RuntimeError("the model is out of memory")
        self._seen = observation["state"]

    def get_action(self) -> list[dict[str, np.ndarray]]:
        """Return five steps that hold the joints."""
        return [{name: self._seen[name] for name in SIZES}] * 5

    def reset(self) -> None:
        """Forget the last observation."""
        self._seen = {}


async def main() -> None:
    """Serve until the process is ended."""
    server = PolicyServer(Hold(), PolicyServerConfig(host="127.0.0.1", port=0))
    await server.start()
    print(server.url, flush=True)
    await server.serve_forever()


asyncio.run(main())
