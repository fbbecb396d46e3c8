"""The policy server against clients that the test writes itself: openpi's dialect, our messages, and every misuse.

In: `tests/doubles/served.py`. Out: a verdict on the server.
Read next: `test_serve_client.py`, our own client; `test_serve_partner.py`, openpi's.
"""

import socket
import stat
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from baselines.floors import HoldConfig, HoldPlugin
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError, SpecMismatch
from evalkit.contracts.msgpack_arrays import Limits, pack
from evalkit.contracts.requests import seed_of
from evalkit.contracts.spec import EE_POSE_BASE, EPISODE, JOINT_POSITION, OSC_DELTA_BASE
from evalkit.contracts.types import PolicyRequest
from evalkit.serve.messages import env_message, observation_keys
from evalkit.serve.session import ClientLimits
from evalkit.testing.requests import env_for
from tests.doubles.policy import FakePolicyConfig, FakePolicyPlugin
from tests.doubles.served import SPEC, Peer, ToldPolicy, plain_message, served, socket_path, until


def ours(number: int, verb: str, message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"evalkit": {"id": number, "do": verb, **more}, **(message or {})}


def asked(number: int, *, seed: int = 7, frames: int = 0, name: str = "e") -> dict[str, Any]:
    numbers = {"episode_id": name, "chunk_idx": 0, "noise_seed": seed, "num_predicted_frames": frames}
    return ours(number, "infer", {**plain_message(SPEC), **numbers})


def reset(number: int = 0, name: str = "e") -> dict[str, Any]:
    return ours(number, "reset", episode=name, env=env_message(env_for(SPEC)))


def status_of(url: str, path: str = "/", **headers: str) -> int:
    request = urllib.request.Request(url.replace("ws://", "http://") + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


# ---- openpi's dialect


def test_an_observation_gets_actions_at_any_path() -> None:
    policy = ToldPolicy()
    with served(policy) as server, Peer(server.url + "/v1/realtime/robot/openpi") as peer:
        assert peer.greeting["action_dim"], peer.greeting["action_horizon"] == (14, 8)
        replies = [peer.ask(plain_message(SPEC)) for _ in range(2)]
    for number, reply in enumerate(replies):
        assert set(reply) == {"actions", "server_timing"}
        assert np.all(reply["actions"][:, 0] == np.float32(seed_of(number) % 1000 / 1000))
        assert 0 <= reply["server_timing"]["infer_ms"] < 1000
    first, second = policy.asked
    assert (first.chunk_idx, second.chunk_idx, second.step_idx) == (0, 1, 8)
    assert first.episode_id == second.episode_id == policy.resets[0][0]
    seen = plain_message(SPEC)
    for key, value in seen.items():
        np.testing.assert_array_equal(getattr(second.observation, key), value)


def test_depth_that_is_left_out_is_unknown() -> None:
    policy, message = ToldPolicy(), plain_message(SPEC)
    with served(policy) as server, Peer(server.url) as peer:
        peer.ask({**message, "depth": np.ones((2, 16, 24), np.float32)})
        peer.ask(message)
    assert [request.observation.depth.mean() for request in policy.asked] == [1.0, 0.0]


def test_another_connection_and_a_reset_are_another_episode() -> None:
    policy = ToldPolicy()
    with served(policy) as server:
        for _ in range(2):
            with Peer(server.url) as peer:
                peer.ask(plain_message(SPEC))
                assert peer.ask({"endpoint": "reset"}) == {"status": "reset successful"}
                peer.ask(plain_message(SPEC))
    assert [request.chunk_idx for request in policy.asked] == [0] * 4
    assert len(policy.resets) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {**m, "rgb": m["rgb"].astype(np.float32)}, r"rgb must be uint8 \(2, 16, 24, 3\), got float32"),
        (lambda m: {**m, "rgb": m["rgb"][:, :8]}, r"rgb must be uint8 \(2, 16, 24, 3\), got uint8 \(2, 8, 24, 3\)"),
        (lambda m: {**m, "rgb": m["rgb"][0]}, "rgb must be an array of 4 axes"),
        (lambda m: {**m, "depth": None}, "depth must be an array of 3 axes, got NoneType"),
        (lambda m: {**m, "proprio": np.zeros(8, np.float32)}, r"proprio must be float32 \(16,\), got float32 \(8,\)"),
        (lambda m: {**m, "proprio": np.full(16, np.nan, np.float32)}, "proprio holds values that are not finite"),
        (lambda m: {**m, "instruction": b"lift"}, "the instruction must be text"),
        (lambda m: {k: v for k, v in m.items() if k != "intrinsics"}, "lacks intrinsics; it must hold rgb, intrinsics"),
        (lambda m: {**m, "prompt": "lift"}, "holds the unknown prompt; it must hold rgb, intrinsics, T_base_cam"),
        (lambda m: {**m, "noise_seed": -1}, "noise_seed must be a whole number from 0 to 4294967295, got -1"),
        (lambda m: {**m, "chunk_idx": True}, "chunk_idx must be a whole number"),
        (lambda m: {**m, "num_predicted_frames": 1}, "needs our messages"),
        (lambda m: {**m, "given_actions": np.zeros((8, 14), np.float32)}, "only predicts its own actions"),
        (lambda m: {**m, "past_rgb": np.zeros(3)}, "reads the current images alone"),
        (lambda m: {**m, "privileged": {}}, "holds the unknown privileged"),
        (lambda m: {**m, "episode": {}}, "holds the unknown episode"),
        (lambda m: {**m, "within_ms": 0}, "within_ms must be a number of milliseconds above 0"),
        (lambda m: {**m, "episode_id": 3}, "episode_id must be text"),
        (lambda m: {**m, "action_layout": EE_POSE_BASE}, "action_layout must be one of osc_delta_base"),
    ],
)
def test_a_wrong_observation_is_named_in_text(change: Callable[[dict[str, Any]], dict[str, Any]], said: str) -> None:
    policy = ToldPolicy()
    with served(policy) as server, Peer(server.url) as peer:
        answer = peer.ask(change(plain_message(SPEC)))
        assert isinstance(answer, str)
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(answer)
        assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)  # the connection goes on
    assert len(policy.asked) == 1


def test_an_error_of_the_policy_is_one_sentence() -> None:
    def fail(request: PolicyRequest) -> None:
        raise ValueError("CUDA out of memory") if request.chunk_idx == 0 else EpisodeFault("policy", "No plan found.")

    with served(ToldPolicy(acts=fail)) as server, Peer(server.url) as peer:
        assert peer.ask(plain_message(SPEC)).startswith("ValueError: CUDA out of memory (test_serve_server.py:")
        assert peer.ask(plain_message(SPEC)) == "No plan found."


def test_a_policy_that_exits_does_not_end_the_server() -> None:
    def leave(_: PolicyRequest) -> None:
        raise SystemExit(3)

    policy = ToldPolicy(acts=leave)
    with served(policy) as server, Peer(server.url) as peer:
        assert "SystemExit: 3" in peer.ask(plain_message(SPEC))
        peer.ask(reset())
        assert "SystemExit: 3" in peer.ask(asked(1))["evalkit"]["error"]
        policy.acts, policy.imagines = lambda _: None, leave
        peer.ask(asked(2, frames=1))
        assert "SystemExit: 3" in peer.ask(ours(3, "prediction", of=2))["evalkit"]["error"]
        assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)


def test_a_policy_of_two_layouts_asks_for_one() -> None:
    policy = HoldPlugin().make(HoldConfig(execute_steps=4))
    message = {"proprio": plain_message(SPEC)["proprio"], "instruction": "hold"}
    with served(policy) as server, Peer(server.url) as peer:
        assert "action_layout must be one of" in peer.ask(message)
        actions = peer.ask({**message, "action_layout": OSC_DELTA_BASE})["actions"]
    assert actions[:, 6].tolist() == [1.0] * 4
    assert not actions[:, 7:].any()


def test_joints_are_a_key_of_joint_policies() -> None:
    spec = replace(SPEC, action_layouts=(JOINT_POSITION,))
    policy = ToldPolicy(spec=spec)
    joints = np.arange(14.0)
    with served(policy) as server, Peer(server.url) as peer:
        assert observation_keys(spec)[-1] == JOINT_POSITION
        message = {**plain_message(SPEC), JOINT_POSITION: joints}
        assert peer.ask(message)["actions"].shape == (8, 14)
        assert "joint_position must be float64" in peer.ask({**message, JOINT_POSITION: joints.astype(np.float32)})
        assert "lacks joint_position" in peer.ask(plain_message(SPEC))
    np.testing.assert_array_equal(policy.asked[0].observation.privileged[JOINT_POSITION], joints)


# ---- our messages


def test_actions_come_before_their_prediction() -> None:
    go_on = threading.Event()
    policy = ToldPolicy(imagines=lambda _: go_on.wait(10))
    with served(policy) as server, Peer(server.url) as peer:
        assert peer.ask(reset())["evalkit"] == {"id": 0}
        first = peer.ask(asked(1, frames=2))
        assert first["evalkit"] == {"id": 1, "details": {"n": 1}, "prediction": True}
        peer.send(ours(2, "prediction", of=1))
        peer.send(reset(3, "another"))  # waits for the policy's thread, which imagines
        go_on.set()
        answers = {answer["evalkit"]["id"]: answer for answer in (peer.receive(), peer.receive())}
        np.testing.assert_array_equal(answers[2]["rgb"], np.stack([plain_message(SPEC)["rgb"]] * 2))
        assert answers[2]["depth"] is answers[2]["proprio"] is None
        again = peer.ask(ours(4, "prediction", of=1))
        assert again["evalkit"]["error"] == "no prediction waits under the number 1."


def test_a_prediction_waits_while_a_request_is_answered() -> None:
    """The policy's decoder works in a thread of its own; here both are asked for over one connection."""
    with served(ToldPolicy()) as server, Peer(server.url) as peer:
        peer.ask(reset())
        peer.ask(asked(1, frames=1))
        peer.send(ours(2, "prediction", of=1))
        peer.send(asked(3, seed=9))
        answers = {answer["evalkit"]["id"]: answer for answer in (peer.receive(), peer.receive())}
    assert answers[2]["rgb"].shape == (1, 2, 16, 24, 3)
    assert np.all(answers[3]["actions"][:, 0] == np.float32(0.009))


def test_a_cancelled_prediction_is_not_computed() -> None:
    busy, imagined = threading.Event(), list[PolicyRequest]()
    policy = ToldPolicy(acts=lambda r: busy.wait(10) if r.noise_seed == 1 else None, imagines=imagined.append)
    with served(policy) as server, Peer(server.url) as peer:
        peer.ask(reset())
        peer.ask(asked(1, frames=1, seed=0))
        until(lambda: len(imagined) == 1)
        peer.send(asked(2, frames=1, seed=1))
        until(lambda: len(policy.asked) == 2)
        peer.send({"evalkit": {"do": "cancel", "of": 2}})
        cancelled = peer.receive()
        assert cancelled["evalkit"]["id"] == 2
        assert "cancelled" in cancelled["evalkit"]["error"]
        busy.set()
        peer.ask(asked(4))
    assert len(imagined) == 1


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (ours(5, "shutdown"), "'do' must be reset, infer, prediction or cancel, got shutdown."),
        (ours(5, "prediction"), "no prediction waits under the number None."),
        (ours(5, "prediction", of="x"), "no prediction waits under the number x."),
        (ours(5, "infer", {"rgb": 3}), "no episode of this episode_id has begun"),
        (ours(5, "infer", {"episode_id": [1]}), "no episode of this episode_id has begun"),
        (ours(5, "reset", episode="e", env=None), "the env's spec of a reset must hold some of"),
        (ours(5, "reset", episode="e", env={"env_id": "x"}), "the env's spec of a reset cannot be read: cameras: "),
        (ours(5, "reset", episode=5, env=env_message(env_for(SPEC))), "episode_id must be text"),
    ],
)
def test_a_wrong_message_of_ours_gets_its_number_back(message: dict[str, Any], said: str) -> None:
    with served(ToldPolicy()) as server, Peer(server.url) as peer:
        answer = peer.ask(message)["evalkit"]
        assert answer["id"] == 5
        assert said in answer["error"]
        assert (answer["kind"], answer["blame"], answer["retriable"]) == ("fault", "policy", False)
        assert peer.ask("text").startswith("a text frame is refused")


def test_an_env_that_does_not_fit_is_refused_at_the_reset() -> None:
    env = replace(env_for(SPEC), image_hw_px=(32, 32))
    with served(ToldPolicy()) as server, Peer(server.url) as peer:
        answer = peer.ask(ours(1, "reset", episode="e", env=env_message(env)))["evalkit"]
    assert answer["kind"] == "refused"
    assert "image size (rows, columns): the env gives (32, 32), the policy needs (16, 24)" in answer["error"]


def test_ids_of_episodes_are_the_servers_and_used_again() -> None:
    policy = ToldPolicy()
    with served(policy) as server:
        for _ in range(3):
            with Peer(server.url) as peer:
                for number in range(70):
                    peer.ask(reset(number, f"episode {number}"))
                assert "no episode" in peer.ask(asked(99, name="episode 0"))["evalkit"]["error"]
                assert peer.ask(asked(99, name="episode 69"))["actions"].shape == (8, 14)
            until(lambda: server.traffic.clients == 0)
    ids = {episode_id for episode_id, _ in policy.resets}
    assert len(policy.resets) == 210
    assert len(ids) <= 65
    assert not any("episode" in each for each in ids)


def test_a_deadline_that_has_passed_is_said() -> None:
    busy = threading.Event()
    policy = ToldPolicy(acts=lambda r: busy.wait(10) if r.noise_seed == 1 else None)
    with served(policy) as server, Peer(server.url) as peer:
        peer.ask(reset())
        peer.send(asked(1, seed=1))
        until(lambda: len(policy.asked) == 1)
        peer.send({**asked(2, seed=2), "within_ms": 20})
        time.sleep(0.1)
        busy.set()
        answers = {answer["evalkit"]["id"]: answer for answer in (peer.receive(), peer.receive())}
    assert "cannot be clean within the 0.02 s" in answers[2]["evalkit"]["error"]
    assert answers[1]["actions"].shape == (8, 14)


# ---- keep-alives and peers that leave


def test_pings_are_answered_during_an_inference() -> None:
    policy = ToldPolicy(acts=lambda _: time.sleep(2.5))
    with (
        served(policy, ping_interval_s=0.2, ping_timeout_s=0.4) as server,
        Peer(server.url, ping_interval=0.2, ping_timeout=0.4) as peer,
    ):
        assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)
        latency_s = peer.socket.latency
    assert 0 < latency_s < 0.4


@pytest.mark.parametrize("message", [plain_message(SPEC), asked(1)], ids=["openpi", "ours"])
def test_a_peer_that_leaves_frees_its_work(message: dict[str, Any]) -> None:
    busy = threading.Event()
    policy = ToldPolicy(acts=lambda _: busy.wait(10))
    with served(policy) as server, Peer(server.url) as other:
        other.send(plain_message(SPEC))  # the policy works on this one
        until(lambda: len(policy.asked) == 1)
        with Peer(server.url) as peer:
            peer.send(reset())
            peer.send(message)
            until(lambda: server.traffic.clients == 2)
            time.sleep(0.2)
        until(lambda: server.traffic.clients == 1)
        busy.set()
        assert other.receive()["actions"].shape == (8, 14)
        assert other.ask(plain_message(SPEC))["actions"].shape == (8, 14)
    assert len(policy.asked) == 2


# ---- limits


def test_a_message_that_is_none_ends_the_connection() -> None:
    from websockets.exceptions import ConnectionClosed

    with served(ToldPolicy()) as server:
        for data in (b"\xc1", b"", b"\x91" * 3000, pack([1]), msgpack.packb({"a": msgpack.ExtType(3, b"x")})):
            with Peer(server.url) as peer:
                assert isinstance(peer.ask(data), str)
                with pytest.raises(ConnectionClosed) as caught:
                    peer.receive()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1007
        with Peer(server.url) as peer:
            assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)


def test_a_message_above_the_size_ends_that_connection_alone() -> None:
    from websockets.exceptions import ConnectionClosed

    limits = ClientLimits(message=Limits(num_bytes=100_000))
    with served(ToldPolicy(), limits=limits) as server, Peer(server.url) as other:
        with Peer(server.url) as peer, pytest.raises(ConnectionClosed):
            peer.ask(bytes(200_000))
        assert other.ask(plain_message(SPEC))["actions"].shape == (8, 14)


def test_the_jobs_of_one_client_are_bounded() -> None:
    busy = threading.Event()
    policy = ToldPolicy(acts=lambda _: busy.wait(10))
    with served(policy, limits=ClientLimits(jobs=3)) as server, Peer(server.url) as peer:
        peer.ask(reset())
        for number in range(1, 5):
            peer.send(asked(number))
        refused = peer.receive()["evalkit"]
        assert (refused["id"], refused["retriable"]) == (4, True)
        assert "3 messages wait for their answers, which is the most" in refused["error"]
        busy.set()
        assert sorted(peer.receive()["evalkit"]["id"] for _ in range(3)) == [1, 2, 3]


def test_predictions_that_are_not_fetched_are_bounded() -> None:
    with served(ToldPolicy(), limits=ClientLimits(predictions=2)) as server, Peer(server.url) as peer:
        peer.ask(reset())
        for number in (1, 2):
            peer.ask(asked(number, frames=1))
        assert "2 predictions wait" in peer.ask(asked(3, frames=1))["evalkit"]["error"]
        peer.send({"evalkit": {"do": "cancel", "of": 1}})
        assert peer.ask(asked(5, frames=1))["evalkit"]["prediction"]


def test_connections_are_bounded() -> None:
    from websockets.exceptions import InvalidStatus

    with served(ToldPolicy(), max_clients=2) as server:
        with Peer(server.url), Peer(server.url):
            with pytest.raises(InvalidStatus, match="503"):
                Peer(server.url)
            assert status_of(server.url, "/healthz") == 200
        until(lambda: server.traffic.clients == 0)
        with Peer(server.url) as peer:
            assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)


def test_a_peer_that_does_not_read_is_cut_off() -> None:
    spec = replace(SPEC, image_hw_px=(256, 256), num_future_frames=2)
    limits = ClientLimits(send_timeout_s=0.5)
    with served(ToldPolicy(spec=spec), limits=limits) as server:
        slow = raw_connection(server.url)
        env = env_message(env_for(spec))
        seen = {**plain_message(spec), "episode_id": "e", "num_predicted_frames": 2}
        send_frame(slow, pack(ours(0, "reset", episode="e", env=env)))
        time.sleep(0.3)
        for number in range(1, 17):
            send_frame(slow, pack(ours(number, "infer", seen)))
            send_frame(slow, pack(ours(100 + number, "prediction", of=number)))
            time.sleep(0.01)
        with Peer(server.url) as peer:
            for _ in range(5):
                assert peer.ask(plain_message(spec))["actions"].shape == (8, 14)
        until(lambda: server.traffic.clients == 0)
        slow.close()


def test_a_peer_that_sends_byte_by_byte_harms_nobody() -> None:
    with served(ToldPolicy(), ping_interval_s=0.2, ping_timeout_s=0.5) as server:
        slow = raw_connection(server.url)
        slow.sendall(
            b"\x82\xff" + struct.pack(">Q", 2**20) + b"mask"
        )  # a frame of a megabyte, of which nothing follows
        with Peer(server.url) as peer:
            for _ in range(5):
                assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)
        until(lambda: server.traffic.clients == 0)
        slow.close()


def raw_connection(url: str) -> socket.socket:
    """Return a socket after the handshake of a websocket, of which nothing is read any more."""
    host, port = url.removeprefix("ws://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


def send_frame(connection: socket.socket, data: bytes) -> None:
    """Send a binary frame whose mask is zero."""
    connection.sendall(b"\x82\xff" + struct.pack(">Q", len(data)) + bytes(4) + data)


# ---- who may connect


def test_the_health_page_needs_no_token_and_one_path_is_served() -> None:
    from websockets.exceptions import InvalidStatus

    with served(ToldPolicy(), path="/robot", token="secret-token") as server:
        base = server.url.removesuffix("/robot")
        assert server.url.endswith("/robot")
        assert status_of(base, "/healthz") == 200
        for path, headers, status in (
            ("/", {"Authorization": "Api-Key secret-token"}, "404"),
            ("/robot", {}, "401"),
            ("/robot", {"Authorization": "Api-Key secret-tokem"}, "401"),
            ("/robot", {"Authorization": "Basic secret-token"}, "401"),
            ("/robot", {"Authorization": "Api-Key secret-token", "Origin": "http://evil.example"}, "403"),
        ):
            with pytest.raises(InvalidStatus, match=status):
                Peer(base + path, additional_headers=headers)
        for scheme in ("Api-Key", "Bearer"):
            with Peer(base + "/robot?x=1", additional_headers={"Authorization": f"{scheme} secret-token"}) as peer:
                assert peer.ask(plain_message(SPEC))["actions"].shape == (8, 14)


def test_policies_that_read_the_episode_are_refused() -> None:
    with pytest.raises(SpecMismatch, match=r"Policy 'fake' reads the planned episode, .* evalkit run --policy fake"):
        served(FakePolicyPlugin().make(FakePolicyConfig())).__enter__()
    oracle = ToldPolicy(spec=replace(SPEC, privileged_keys=("cube_pos_m", "robot0_eef_pos")))
    with pytest.raises(SpecMismatch, match=r"reads the simulator's state \(cube_pos_m\)"):
        served(oracle).__enter__()
    with pytest.raises(BadConfig, match="needs a Unix socket"):
        served(ToldPolicy(spec=replace(SPEC, privileged_keys=(EPISODE,))), private=True).__enter__()


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with served(ToldPolicy()) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(EvalkitError, match=f"Cannot listen on 127.0.0.1:{port}: "):
            served(ToldPolicy(), port=port).__enter__()
    path = socket_path(tmp_path)
    with served(ToldPolicy(), unix=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(EvalkitError, match="another server listens there; choose another one"):
            served(ToldPolicy(), unix=path).__enter__()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with served(ToldPolicy(), unix=path) as server:
        assert server.url == f"unix://{path}"
