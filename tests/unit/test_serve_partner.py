"""A policy server of ours with the unmodified `openpi-client`.

In: an interpreter that has it, named by `EVALKIT_OPENPI_PYTHON` (`test_remote_partner.py` says how to make one);
without it, these tests are skipped. Out: a verdict on the wire.
Read next: `tests/doubles/openpi_partner.py`, what runs there; `test_serve_server.py` for the rest of the server.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.policy import Policy
from evalkit.contracts.requests import seed_of
from tests.doubles.known import known
from tests.doubles.served import SPEC, ToldPolicy, plain_message, seeded, served
from xwam.policy import XwamPlugin, XwamPolicyConfig

pytestmark = pytest.mark.skipif(
    "EVALKIT_OPENPI_PYTHON" not in os.environ, reason="EVALKIT_OPENPI_PYTHON names no interpreter with openpi-client"
)
SCRIPT = Path(__file__).parents[1] / "doubles" / "openpi_partner.py"


def acted(url: str, folder: Path, message: dict[str, Any], count: int = 1) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return what openpi's client got for an observation: what it printed, and its actions."""
    np.savez(folder / "in.npz", **message)
    command = [os.environ["EVALKIT_OPENPI_PYTHON"], str(SCRIPT), "act", url]
    command += [str(folder / "in.npz"), str(folder / "out.npy"), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    said = json.loads(done.stdout)
    return said, None if said["error"] else np.load(folder / "out.npy")


def expected(policy: Policy, index: int, count: int) -> np.ndarray:
    """Return the actions of the first requests of a client that sends no seeds."""
    requests = [seeded(policy.spec, index, noise_seed=seed_of(number)) for number in range(count)]
    return np.stack([policy.infer([request])[0].actions for request in requests])


def test_openpis_client_gets_the_actions_of_nano(tmp_path: Path) -> None:
    policy = XwamPlugin().make(XwamPolicyConfig())
    message = plain_message(policy.spec) | {"depth": seeded(policy.spec, 0).observation.depth}
    with served(policy) as server:
        said, actions = acted(server.url + "/openpi/policy", tmp_path, message, count=2)
    assert said["error"] is None, said
    assert {"action_dim", "action_horizon", "evalkit", "policy"} <= set(said["keys"])
    np.testing.assert_array_equal(known(actions), expected(policy, 0, 2))


def test_openpis_client_is_told_what_is_wrong(tmp_path: Path) -> None:
    message = plain_message(SPEC)
    with served(ToldPolicy(), token="secret-token-1") as server, pytest.raises(subprocess.CalledProcessError):
        acted(server.url, tmp_path, message)
    with served(ToldPolicy()) as server:
        said, _ = acted(server.url, tmp_path, {**message, "rgb": message["rgb"][:1]})
        assert "rgb must be uint8 (2, 16, 24, 3), got uint8 (1, 16, 24, 3)" in said["error"]
        message["prompt"] = message.pop("instruction")
        said, _ = acted(server.url, tmp_path, message)
        assert "the request lacks instruction and holds the unknown prompt; it must hold rgb" in said["error"]


@pytest.mark.slow
def test_an_inference_of_65_s_keeps_openpis_connection(tmp_path: Path) -> None:
    policy = ToldPolicy(acts=lambda _: time.sleep(65))
    with served(policy) as server:
        said, actions = acted(server.url, tmp_path, plain_message(SPEC))
    assert said["error"] is None, said
    assert actions is not None
    assert len(policy.asked) == 1
