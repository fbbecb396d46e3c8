"""The policy `remote` against the unmodified `openpi-client` and `msgpack-numpy`.

In: an interpreter that has them, named by `EVALKIT_OPENPI_PYTHON`; without it, these tests are skipped. `make partners`
builds one with the pins of `tests/partners.txt`, and runs them. With a checkout of XPolicyLab named by
`EVALKIT_XPOLICYLAB_ROOT`, XPolicyLab's own server is a partner too. Out: a verdict on wire, arrays and images.
Read next: `tests/doubles/openpi_partner.py`, what runs there; `test_remote_policy.py` for the rest of the policy.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.remote.convert import resize_with_pad
from baselines.remote.policy import RemotePlugin, RemotePolicy
from baselines.remote.settings import RemoteConfig
from evalkit import testing
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.msgpack_arrays import pack, unpack
from evalkit.contracts.spec import JOINT_POSITION
from tests.doubles.policy_server import hold, serving

pytest.importorskip("websockets", reason="websockets is not installed (pip install '.[remote]')")
pytestmark = pytest.mark.skipif(
    "EVALKIT_OPENPI_PYTHON" not in os.environ, reason="EVALKIT_OPENPI_PYTHON names no interpreter with openpi-client"
)
SCRIPT = Path(__file__).parents[1] / "doubles" / "openpi_partner.py"


def partner(*arguments: str) -> str:
    command = [os.environ["EVALKIT_OPENPI_PYTHON"], str(SCRIPT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@contextmanager
def partner_server(mode: str, first_s: float = 0.0) -> Iterator[str]:
    command = [os.environ["EVALKIT_OPENPI_PYTHON"], str(SCRIPT), "serve", mode, str(first_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"ws://127.0.0.1:{process.stdout.readline().strip()}/v1/realtime/robot/openpi"
        finally:
            process.kill()


def loaded(url: str, **settings: Any) -> RemotePolicy:
    policy = RemotePlugin().make(RemoteConfig(url=url, **settings))
    assert isinstance(policy, RemotePolicy)
    return policy


def test_it_acts_through_openpis_own_packages() -> None:
    with partner_server("hold") as url:
        plugin, config = RemotePlugin(), RemoteConfig(url=url)
        assert '"served": "hold"' in plugin.provenance(config)["server metadata"]
        policy = testing.load_checked_policy(plugin, config)
        testing.check_replies(policy)
        testing.check_independence(policy)
        (reply,) = testing.ask(policy, testing.noise_request(policy.spec, 0, 0))
        assert not reply.actions[:, :6].any()
        assert set(reply.timings_ms) == {"adapt", "wire", "server"}


def test_its_error_is_one_sentence_and_the_policy_goes_on() -> None:
    with partner_server("fail") as url:
        policy = loaded(url)
        requests = [testing.noise_request(policy.spec, 0, index) for index in range(3)]
        testing.ask(policy, requests[0])
        with pytest.raises(EpisodeFault, match=r"error: ValueError: CUDA out of memory in the third request") as caught:
            policy.infer([requests[1]])
        assert (caught.value.blame, caught.value.retriable) == ("policy", False)
        assert "Traceback (most recent call last)" in str(caught.value.__cause__)
        assert policy.infer([requests[2]])[0].actions.shape == (8, 14)


def test_a_server_of_another_layout_is_refused() -> None:
    with (
        partner_server("pose") as url,
        pytest.raises(EvalkitError, match=r"must have the shape \(8, 7\), got \(8, 14\)"),
    ):
        loaded(url)


@pytest.mark.skipif(
    "EVALKIT_XPOLICYLAB_ROOT" not in os.environ, reason="EVALKIT_XPOLICYLAB_ROOT names no checkout of XPolicyLab"
)
def test_xpolicylabs_own_server_is_understood() -> None:
    script = SCRIPT.with_name("xpolicylab_partner.py")
    command = [os.environ["EVALKIT_OPENPI_PYTHON"], str(script), os.environ["EVALKIT_XPOLICYLAB_ROOT"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            policy = loaded(url, adapter="xpolicylab-robotwin-joint", chunk_len=5)
            request = testing.noise_request(policy.spec, 0, 0)
            (reply,) = testing.ask(policy, request)
            joints = request.observation.privileged[JOINT_POSITION]
            np.testing.assert_allclose(reply.actions, np.tile(joints, (5, 1)), rtol=1e-6)
            failing = replace(request, observation=replace(request.observation, instruction="fail"))
            with pytest.raises(EpisodeFault, match="infer_failed: the model is out of memory"):
                policy.infer([failing])
        finally:
            process.kill()


@pytest.mark.slow
def test_a_first_inference_of_a_minute_keeps_the_connection() -> None:
    with partner_server("hold", first_s=60) as url:
        policy = loaded(url)
        testing.check_replies(policy)
        assert policy.client.reconnections == 0


def test_openpis_client_understands_the_double() -> None:
    with serving(hold(7), metadata={"action_dim": 7}) as server:
        found = json.loads(partner("ask", server.url))
    assert found == {"metadata": {"action_dim": 7}, "shape": [8, 7], "dtype": "float32"}
    assert (server.seen[0]["prompt"], server.seen[0]["flag"]) == ("p", np.float32(2))


@pytest.mark.parametrize("hw_px", [(224, 224), (100, 224), (64, 48)])
def test_padding_is_that_of_openpi_to_the_bit(tmp_path: Path, hw_px: tuple[int, int]) -> None:
    for size in ((240, 320, 3), (256, 256, 3), (33, 17, 3)):
        image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        np.save(tmp_path / "in.npy", image)
        partner("resize", str(tmp_path / "in.npy"), str(tmp_path / "out.npy"), *map(str, hw_px))
        np.testing.assert_array_equal(resize_with_pad(image, hw_px), np.load(tmp_path / "out.npy"))


def test_xpolicylabs_arrays_are_those_of_msgpack_numpy(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    value: dict[str, Any] = {"color": image, "list": [np.float32(1.5), "text", 3, None]}
    (tmp_path / "in").write_bytes(pack(value, "msgpack_numpy"))
    partner("reencode", str(tmp_path / "in"), str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    found = unpack((tmp_path / "out").read_bytes(), "msgpack_numpy")
    np.testing.assert_array_equal(found["color"], value["color"])
    assert found["list"] == value["list"]
    assert found["list"][0].dtype == np.float32
