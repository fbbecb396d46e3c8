"""A served policy gives what the policy gives in process; what goes wrong on the way is a fault with a reason.

In: policies served in this process, and servers that break their word. Out: a verdict on `ServedPolicy`.
Read next: `test_serve_server.py`, the other end; `tests/sim/test_served_run.py`, whole runs.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.remote.policy import RemotePlugin
from baselines.remote.settings import RemoteConfig
from evalkit import testing
from evalkit.config import bind_policy
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError, SpecMismatch
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EPISODE, EVERYTHING, EnvSpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.serve.client import ServedPolicy, TimeLimits
from evalkit.serve.connection import Address
from evalkit.serve.greeting import PROTOCOL, Greeting
from evalkit.testing.replies import check_given_actions
from evalkit.testing.requests import env_for
from tests.doubles.faulty_policy import FaultyConfig, FaultyPlugin
from tests.doubles.known import known
from tests.doubles.policy import FakePolicyConfig, FakePolicyPlugin
from tests.doubles.policy_server import hold
from tests.doubles.policy_server import serving as other_serving
from tests.doubles.served import SPEC, ToldPolicy, seeded, served, socket_path, tapped, until
from xwam.policy import XwamPlugin, XwamPolicyConfig

FAST = TimeLimits(connect_s=1.0, reply_s=10.0)


@contextmanager
def connected(policy: Policy, *, limits: TimeLimits = FAST, **listen: Any) -> Iterator[ServedPolicy]:
    with served(policy, **listen) as server, ServedPolicy(Address(url=server.url), limits) as client:
        yield client


def predicted(reply: PolicyReply) -> Prediction:
    return known(reply.prediction)()


def assert_same(one: Prediction, other: Prediction) -> None:
    for name in ("rgb", "depth", "proprio"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine is theirs is None or (mine.dtype == theirs.dtype and mine.shape == theirs.shape)
        np.testing.assert_array_equal(mine, theirs)


# ---- equal to the policy in process


def test_nano_is_served_to_the_bit() -> None:
    policy = XwamPlugin().make(XwamPolicyConfig())
    given = np.random.default_rng(0).uniform(-0.5, 0.5, (policy.spec.chunk_len, 14)).astype(np.float32)
    given[:, 7:] = 0.0
    requests = [
        seeded(policy.spec, 0),
        seeded(policy.spec, 1, num_predicted_frames=2),
        seeded(policy.spec, 2, num_predicted_frames=1, given_actions=given),
        seeded(policy.spec, 3, num_predicted_frames=0),
    ]
    expected = testing.ask(policy, *requests)
    with connected(policy) as client:
        assert client.spec == policy.spec
        replies = testing.ask(client, *requests)
        for request, mine, theirs in zip(requests, replies, expected, strict=True):
            np.testing.assert_array_equal(mine.actions, theirs.actions)
            assert mine.actions.dtype == np.float32
            assert (mine.prediction is None) == (request.num_predicted_frames == 0)
            if request.num_predicted_frames:
                assert_same(predicted(mine), predicted(theirs))
        assert {"wire", "server", "encode", "denoise_actions", "passes", "decode"} <= set(replies[1].timings_ms)


def test_memory_past_frames_and_given_actions_are_served() -> None:
    plugin, config = FaultyPlugin(), FaultyConfig()
    alone = plugin.make(config)
    with connected(plugin.make(config)) as client:
        for chunk_idx in range(3):
            requests = [testing.noise_request(client.spec, index, chunk_idx) for index in range(2)]
            for mine, theirs in zip(testing.ask(client, *requests), testing.ask(alone, *requests), strict=True):
                np.testing.assert_array_equal(mine.actions, theirs.actions)
                assert_same(predicted(mine), predicted(theirs))
        testing.check_replies(client)
        testing.check_independence(client)
        testing.check_prediction_is_passive(client)
        check_given_actions(client)


def test_the_policy_gets_the_same_request() -> None:
    policy = ToldPolicy()
    request = seeded(SPEC, 0, chunk_idx=3, step_idx=21, noise_seed=2**32 - 1, num_predicted_frames=1)
    with connected(policy) as client:
        client.reset(request.episode_id, env_for(SPEC))
        (reply,) = client.infer([request])
    (got,) = policy.asked
    assert reply.details == {"n": 1}
    for name in ("chunk_idx", "step_idx", "noise_seed", "num_predicted_frames", "given_actions", "past_rgb", "episode"):
        assert getattr(got, name) == getattr(request, name)
    for name in ("rgb", "depth", "intrinsics", "T_base_cam", "proprio", "instruction"):
        np.testing.assert_array_equal(getattr(got.observation, name), getattr(request.observation, name))
    ((_, env),) = policy.resets
    assert env == replace(env_for(SPEC), env_id="robosuite")


def test_an_oracle_is_served_over_a_private_socket_alone(tmp_path: Path) -> None:
    policy = FakePolicyPlugin().make(FakePolicyConfig())
    request = seeded(policy.spec, 5)
    (expected,) = testing.ask(policy, request)
    with connected(policy, unix=socket_path(tmp_path), private=True) as client:
        (reply,) = testing.ask(client, request)
    np.testing.assert_array_equal(reply.actions, expected.actions)
    everything = ToldPolicy(spec=replace(SPEC, privileged_keys=(EVERYTHING,)))
    request = seeded(everything.spec, 0)
    state = {"cube_pos_m": np.arange(3.0)}
    request = replace(request, observation=replace(request.observation, privileged=state))
    with connected(everything, unix=socket_path(tmp_path), private=True) as client:
        testing.ask(client, request)
    (got,) = everything.asked
    assert got.episode == request.episode
    np.testing.assert_array_equal(got.observation.privileged["cube_pos_m"], np.arange(3.0))


def test_many_threads_share_a_connection() -> None:
    with connected(ToldPolicy()) as client:
        env = env_for(SPEC)

        def episode(index: int) -> bool:
            client.reset(f"episode {index}", env)
            for chunk_idx in range(5):
                seed = 10 * index + chunk_idx
                (reply,) = client.infer([seeded(SPEC, index, chunk_idx=chunk_idx, noise_seed=seed)])
                assert np.all(reply.actions[:, 0] == np.float32(seed / 1000))
                assert predicted(reply).rgb.shape == (2, 2, 16, 24, 3)
            return True

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(episode, range(16)))


# ---- nothing crosses that must not


def test_neither_task_nor_seed_nor_state_crosses() -> None:
    spec = replace(SPEC, env_ids=("robosuite/NutAssemblySquare",))
    with served(ToldPolicy(spec=spec)) as server, tapped(server.url) as tap:
        client = ServedPolicy(Address(url=tap.url), FAST)
        env = replace(env_for(spec), privileged_keys=("nut_pos_m",))
        request = seeded(spec, 0)
        state = {"nut_pos_m": np.array([0.1234567])}
        request = replace(request, observation=replace(request.observation, privileged=state))
        client.reset(request.episode_id, env)
        predicted(client.infer([request])[0])
        client.close()
    sent = b"".join(tap.to_server)
    assert len(tap.to_server) == 3
    for secret in (b"NutAssembly", b"nut_pos", np.float64(0.1234567).tobytes()):
        assert secret not in sent


@pytest.mark.parametrize("key", [EPISODE, EVERYTHING, "cube_pos_m"])
@pytest.mark.parametrize("private", [False, True])
def test_a_server_that_asks_for_secrets_is_refused(key: str, private: bool) -> None:
    greeting = Greeting(spec=replace(SPEC, privileged_keys=(key,)), private=private)
    with (
        other_serving(hold(14), metadata=greeting.to_wire()) as server,
        pytest.raises(SpecMismatch, match="Policy 'told' reads"),
    ):
        ServedPolicy(Address(url=server.url), FAST)


# ---- servers that are others, gone, slow or wrong


def test_a_server_of_another_kind_is_named() -> None:
    with (
        other_serving(hold(7)) as server,
        pytest.raises(EvalkitError, match=r"No policy server of evalkit answers at .*another program"),
    ):
        ServedPolicy(Address(url=server.url), FAST)
    with pytest.raises(
        EvalkitError, match="No policy server of evalkit answers at ws://localhost:9: Connection refused"
    ):
        ServedPolicy(Address(url="ws://localhost:9"), TimeLimits(connect_s=0.1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": PROTOCOL + 1}, "speaks version 2 of evalkit's protocol, this client version 1"),
        ({"spec": {"policy_id": "x"}}, r"the server's metadata cannot be read: spec\.action_layouts: Field required"),
        ({"spec": 3}, "cannot be read: spec: "),
        ({"surprise": 1}, "must hold some of"),
    ],
)
def test_metadata_that_cannot_be_read_is_named(change: Mapping[str, Any], said: str) -> None:
    metadata = Greeting(spec=SPEC).to_wire()
    with (
        other_serving(hold(7), metadata={**metadata, "evalkit": {**metadata["evalkit"], **change}}) as server,
        pytest.raises(EvalkitError, match=said),
    ):
        ServedPolicy(Address(url=server.url), FAST)


def test_an_env_that_does_not_fit_is_refused_before_its_start() -> None:
    policy = ToldPolicy()
    env = replace(env_for(SPEC), action_layout="ee_pose_base", image_hw_px=(8, 8))
    with connected(policy) as client, pytest.raises(SpecMismatch, match=r"image size .*actions: the env takes"):
        client.reset("e", env)
    assert policy.resets == []


def test_errors_of_the_policy_keep_their_kind() -> None:
    raised: list[Exception] = [
        EpisodeFault("env", "The cube fell.", retriable=True),
        EvalkitError("This policy refuses."),
        ValueError("CUDA out of memory"),
        EpisodeFault("policy", "the last"),
    ]

    def fail(_: PolicyRequest) -> None:
        raise raised[0]

    with connected(ToldPolicy(acts=fail)) as client:
        request = seeded(SPEC, 0)
        with pytest.raises(EpisodeFault, match=r"^The server at ws://.*: The cube fell\.$") as caught:
            testing.ask(client, request)
        assert (caught.value.blame, caught.value.retriable) == ("env", True)
        raised.pop(0)
        with pytest.raises(EvalkitError, match=r"^This policy refuses\.$"):
            testing.ask(client, request)
        raised.pop(0)
        with pytest.raises(EpisodeFault, match="ValueError: CUDA out of memory") as caught:
            testing.ask(client, request)
        assert (caught.value.blame, caught.value.retriable) == ("policy", False)


def test_a_reply_that_cannot_be_sent_blames_the_policy() -> None:
    class Odd(ToldPolicy):
        def infer(self, requests: Any) -> list[PolicyReply]:
            return [replace(reply, details={"mask": np.ma.masked_equal([1], 1)}) for reply in super().infer(requests)]

    with connected(Odd()) as client, pytest.raises(EpisodeFault, match="masked arrays do not travel") as caught:
        testing.ask(client, seeded(SPEC, 0))
    assert not caught.value.retriable


def test_a_policy_that_is_too_slow_is_a_retriable_fault() -> None:
    busy = threading.Event()
    policy = ToldPolicy(acts=lambda r: busy.wait(10) if r.noise_seed == 1 else None)
    with connected(policy, limits=TimeLimits(connect_s=1.0, reply_s=0.5)) as client:
        request = seeded(SPEC, 0)
        client.reset(request.episode_id, env_for(SPEC))
        started = time.monotonic()
        with pytest.raises(EpisodeFault, match=r"gave no reply: no reply within 0.5 s") as caught:
            client.infer([replace(request, noise_seed=1)])
        assert caught.value.retriable
        assert time.monotonic() - started < 2
        busy.set()
        (reply,) = client.infer([replace(request, noise_seed=2)])
        assert np.all(reply.actions[:, 0] == np.float32(0.002))
        assert client.reconnections == 0


def test_a_server_that_comes_back_serves_the_next_episode() -> None:
    policy, env, request = ToldPolicy(), env_for(SPEC), seeded(SPEC, 0)
    with served(policy) as server:
        port = int(server.url.rpartition(":")[2])
        client = ServedPolicy(Address(url=server.url), FAST)
        client.reset("first", env)
        client.infer([replace(request, episode_id="first")])
    with pytest.raises(EpisodeFault, match=r"gave no reply: the server closed the connection") as caught:
        client.infer([replace(request, episode_id="first", chunk_idx=1)])
    assert caught.value.retriable
    with pytest.raises(EpisodeFault, match="gave no reply: Connection refused") as caught:
        client.reset("second", env)
    assert caught.value.retriable
    with served(policy, port=port):
        client.reset("second", env)
        client.infer([replace(request, episode_id="second")])
        with pytest.raises(EpisodeFault, match="gave no reply"):
            client.infer([replace(request, episode_id="first", chunk_idx=1)])
        assert client.reconnections == 1
    other = ToldPolicy(spec=replace(SPEC, policy_id="other"))
    with served(other, port=port), pytest.raises(EvalkitError, match="serves another policy now: other"):
        client.reset("third", env)
    client.close()


def test_the_actions_may_be_asked_for_again() -> None:
    with connected(ToldPolicy()) as client:
        request = seeded(SPEC, 0)
        client.reset(request.episode_id, env_for(SPEC))
        handle = client.submit(request)
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda _: handle.actions(), range(2))
        for reply in (second, handle.actions()):
            np.testing.assert_array_equal(reply.actions, first.actions)
            assert (reply.timings_ms, reply.details) == (first.timings_ms, first.details)


def test_a_prediction_that_is_not_fetched_is_dropped() -> None:
    imagined = list[PolicyRequest]()
    busy = threading.Event()
    policy = ToldPolicy(acts=lambda r: busy.wait(10) if r.noise_seed == 1 else None, imagines=imagined.append)
    with served(policy) as server, ServedPolicy(Address(url=server.url), FAST) as client:
        client.reset("e", env_for(SPEC))
        handle = client.submit(seeded(SPEC, 0, episode_id="e", noise_seed=1))
        until(lambda: len(policy.asked) == 1)
        del handle
        second = client.submit(seeded(SPEC, 0, episode_id="e", noise_seed=2, num_predicted_frames=0))
        until(lambda: server.traffic.requests == 2)
        busy.set()
        second.actions()
    assert imagined == []


# ---- `--policy remote`


def test_remote_finds_a_server_of_ours_by_its_metadata() -> None:
    policy = ToldPolicy()
    with served(policy, provenance={"weights": "sha256 abc"}) as server:
        plugin, config = RemotePlugin().for_bench("robosuite"), RemoteConfig(url=server.url)
        assert plugin.spec(config) == SPEC
        facts = plugin.provenance(config)
        assert facts["weights"] == "sha256 abc"
        assert facts["server"] == f"{server.url} (evalkit, protocol 1, width 1)"
        assert all(finding.ok for finding in plugin.examine(config))
        loaded = testing.load_checked_policy(plugin, config)
        testing.check_replies(loaded)
        named = RemoteConfig(url=server.url, label="mine", execute_steps=4)
        assert (plugin.spec(named).policy_id, plugin.spec(named).execute_steps) == ("remote/mine", 4)
        with pytest.raises(BadConfig, match=r"chunk_len=4 cannot be used: the policy at .* replies with 8 actions"):
            plugin.spec(RemoteConfig(url=server.url, chunk_len=4))
        with pytest.raises(BadConfig, match="execute_steps=9 is more than a reply"):
            plugin.spec(RemoteConfig(url=server.url, execute_steps=9))


def test_remote_takes_a_unix_socket_and_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(ToldPolicy(), unix=socket_path(tmp_path), token="secret-token") as server:
        plugin, config = RemotePlugin(), RemoteConfig(url=server.url, connect_timeout_s=0.2)
        with pytest.raises(EvalkitError, match=r"401: the server asks for an API key; set EVALKIT_REMOTE_API_KEY to"):
            plugin.spec(config)
        monkeypatch.setenv("EVALKIT_REMOTE_API_KEY", "another-token")
        refused = r"401: the server refuses the API key that was sent; EVALKIT_REMOTE_API_KEY must hold"
        with pytest.raises(EvalkitError, match=refused) as caught:
            bind_policy("remote", [f"policy.remote.url={server.url}"]).require()
        assert "start the server" not in str(caught.value)
        monkeypatch.setenv("EVALKIT_REMOTE_API_KEY", "secret-token")
        assert plugin.spec(config) == SPEC
        testing.check_replies(plugin.make(config))


def test_remote_notices_another_policy_at_its_address() -> None:
    with served(ToldPolicy()) as server:
        config, port = RemoteConfig(url=server.url), int(server.url.rpartition(":")[2])
        assert RemotePlugin().spec(config) == SPEC
    with (
        served(ToldPolicy(spec=replace(SPEC, policy_id="other")), port=port),
        pytest.raises(EvalkitError, match="serves another policy than a moment ago"),
    ):
        RemotePlugin().make(config)


@pytest.mark.slow
def test_an_inference_of_a_minute_keeps_the_connection() -> None:
    policy = ToldPolicy(acts=lambda _: time.sleep(65))
    with connected(policy, limits=TimeLimits(connect_s=1.0, reply_s=120.0)) as client:
        testing.ask(client, seeded(SPEC, 0))
        assert client.reconnections == 0


def test_the_env_of_a_reset_is_stripped_again() -> None:
    policy = ToldPolicy()
    with connected(policy) as client:
        client.reset("e", replace(env_for(SPEC), env_id="robosuite/Lift"))
    ((_, env),) = policy.resets
    assert isinstance(env, EnvSpec)
    assert env.env_id == "robosuite"
