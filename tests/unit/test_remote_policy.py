"""The policy `remote` against a double: connections that end, errors, refusals, and whole runs on robosuite.

In: `tests/doubles/policy_server.py`, a server in a thread. Out: a verdict on the policy.
Read next: `test_remote_partner.py`, the same wire with openpi's own packages; `test_remote_adapters.py` for numbers.
"""

import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.remote import adapter as adapters
from baselines.remote.client import Client, NoReply, Patience
from baselines.remote.policy import RemotePlugin, RemotePolicy, metadata_sha256
from baselines.remote.settings import KEY_VARIABLE, RemoteConfig
from envs.robotwin.tasks import env_spec as robotwin_spec
from evalkit import testing
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.spec import JOINT_POSITION
from evalkit.serve.connection import Address
from evalkit.store.run_folder import open_run
from tests.doubles.policy_server import HangUp, SayError, hold, serving

pytest.importorskip("websockets", reason="websockets is not installed (pip install '.[remote]')")
ROOT = Path(__file__).resolve().parents[2]
ROBOTWIN = robotwin_spec("click_bell", layout=JOINT_POSITION, T_ee_cams={"left": np.eye(4), "right": np.eye(4)})


def loaded(url: str, **settings: Any) -> RemotePolicy:
    policy = RemotePlugin().make(RemoteConfig(url=url, **{"connect_timeout_s": 1.0, "reply_timeout_s": 5.0} | settings))
    assert isinstance(policy, RemotePolicy)
    return policy


class Script:
    """A reply function that does what a list says, one entry for each observation, and then holds."""

    def __init__(self, *entries: Any, columns: int = 7) -> None:
        self._entries, self._hold = list(entries), hold(columns)

    def __call__(self, observation: Mapping[str, Any]) -> Any:
        entry = self._entries.pop(0) if self._entries else None
        if isinstance(entry, Exception):
            raise entry
        if isinstance(entry, float):
            time.sleep(entry)
            entry = None
        return self._hold(observation) if entry is None else entry


def test_it_keeps_the_contract_of_a_policy() -> None:
    with serving(hold(7)) as server:
        policy = testing.load_checked_policy(RemotePlugin(), RemoteConfig(url=server.url))
        testing.check_replies(policy)
        testing.check_independence(policy)
        testing.check_prediction_is_passive(policy)
    assert all(set(seen) == {"images", "state", "prompt"} for seen in server.seen)
    assert len(server.headers) == 3  # is it evalkit's?; its metadata for the provenance; every request


def test_a_lost_connection_is_replaced_within_the_attempts() -> None:
    with serving(Script(None, HangUp(), HangUp())) as server:
        policy = loaded(server.url, attempts=3)
        (reply,) = testing.ask(policy, testing.noise_request(policy.spec, 0, 0))
        assert reply.details == {"reconnections": 2}
        (reply,) = testing.ask(policy, testing.noise_request(policy.spec, 1, 0))
        assert reply.details == {}


def test_after_the_last_attempt_the_episode_may_be_tried_again() -> None:
    with serving(Script(None, *[HangUp()] * 2)) as server:
        policy = loaded(server.url, attempts=2)
        with pytest.raises(EpisodeFault, match=r"gave no reply: the server closed .* in 2 attempts") as caught:
            testing.ask(policy, testing.noise_request(policy.spec, 0, 0))
        assert (caught.value.blame, caught.value.retriable) == ("policy", True)


def test_a_late_reply_is_not_taken_for_the_next_one() -> None:
    late = {"actions": np.full((8, 7), 0.5)}
    script = Script(None, 1.5, None)
    with serving(script) as server:
        policy = loaded(server.url, reply_timeout_s=0.5)
        with pytest.raises(EpisodeFault, match=r"gave no reply: no reply within 0.5 s"):
            testing.ask(policy, testing.noise_request(policy.spec, 0, 0))
        script._entries = [late]
        (reply,) = testing.ask(policy, testing.noise_request(policy.spec, 1, 0))
        assert np.all(reply.actions[:, :6] == 0.5)


def test_text_is_an_error_and_the_next_request_reconnects() -> None:
    text = "Traceback (most recent call last):\n  File 'x.py'\nRuntimeError: out of memory\n"
    with serving(Script(None, SayError(text))) as server:
        policy = loaded(server.url)
        with pytest.raises(EpisodeFault, match=r"with an error: RuntimeError: out of memory\.") as caught:
            testing.ask(policy, testing.noise_request(policy.spec, 0, 0))
        assert not caught.value.retriable
        assert str(caught.value.__cause__) == text.strip()
        testing.ask(policy, testing.noise_request(policy.spec, 1, 0))


@pytest.mark.parametrize(
    "error", [{"type": "error", "message": "Invalid request payload"}, {"error": "Invalid request payload"}]
)
def test_errors_in_msgpack_are_errors(error: dict[str, str]) -> None:
    with serving(Script(None, error)) as server:
        policy = loaded(server.url)
        with pytest.raises(EpisodeFault, match="with an error: Invalid request payload"):
            testing.ask(policy, testing.noise_request(policy.spec, 0, 0))


def test_the_key_and_the_path_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hold(7), api_key="secret") as server:
        with pytest.raises(EvalkitError, match="HTTP status 401: the server asks for an API key"):
            loaded(server.url)
        named = RemoteConfig(url=server.url, adapter="evalkit-osc")
        finding = RemotePlugin().examine(named)[-1]
        assert (finding.ok, finding.remedy.startswith(f"set {KEY_VARIABLE} to")) == (False, True)
        with pytest.raises(EvalkitError, match=f"asks for an API key; set {KEY_VARIABLE} to"):
            RemotePlugin().provenance(named)
        monkeypatch.setenv(KEY_VARIABLE, "secret")
        loaded(server.url)
        facts = RemotePlugin().provenance(RemoteConfig(url=server.url))
        assert "secret" not in json.dumps(facts)
        with pytest.raises(EvalkitError, match="HTTP status 404: the server has no such path"):
            loaded(server.url.removesuffix("/openpi"))


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EvalkitError, match=r"No server of a policy answers at ws://localhost:9: Connection refused"):
        loaded("ws://localhost:9")
    started = time.monotonic()
    finding = RemotePlugin().examine(RemoteConfig(url="ws://localhost:9"))[-1]
    assert (finding.ok, finding.needed) == (False, True)
    assert time.monotonic() - started < 10, "one attempt, not connect_timeout_s of them"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_wss_checks_the_certificate(tmp_path: Path) -> None:
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(hold(7), ssl=context) as server:
        testing.check_replies(loaded(server.url, ca_file=str(tmp_path / "cert.pem")))
        with pytest.raises(EvalkitError, match="certificate verify failed"):
            loaded(server.url, connect_timeout_s=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://localhost:8000"}, "must be like ws://host:8000/path"),
        ({"url": "unix://p.sock"}, r"must hold an absolute path, for example unix:///.*/p\.sock"),
        ({"url": "ws://user:secret@host/x"}, "neither a password nor a query"),
        ({"url": "ws://host/x?key=secret"}, "neither a password nor a query"),
        ({"attempts": 0}, "policy.remote.attempts must be from 1"),
        ({"reply_timeout_s": float("nan")}, "policy.remote.reply_timeout_s must be"),
        ({"chunk_len": 0}, "policy.remote.chunk_len must be"),
    ],
)
def test_settings_that_reach_no_server(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        RemoteConfig(**settings)
    assert "secret" not in str(caught.value)


def test_an_adapter_of_another_bench_is_refused() -> None:
    with pytest.raises(
        BadConfig, match=r"'pi0-robotwin' is for robotwin, not for robosuite; adapters for robosuite: evalkit-osc"
    ):
        RemotePlugin().for_bench("robosuite").spec(RemoteConfig(adapter="pi0-robotwin"))


def test_chunk_lengths_are_settings() -> None:
    spec = RemotePlugin().spec(RemoteConfig(chunk_len=4))
    assert (spec.chunk_len, spec.execute_steps) == (4, 4)
    with pytest.raises(BadConfig, match="execute_steps=9 is more than a reply of 'evalkit-osc' holds"):
        RemotePlugin().spec(RemoteConfig(execute_steps=9))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"actions": np.zeros((8, 14))}, r"must have the shape \(8, 7\), got \(8, 14\)"),
        ({"actions": np.full((8, 7), 40.0)}, "the server answers in another layout or unit"),
        ({"action": np.zeros((8, 7))}, "must stand under 'actions'"),
        (np.zeros(3), "must stand under 'actions', the reply holds ndarray"),
        (SayError("KeyError: 'observation/image'"), "with an error: KeyError: 'observation/image'"),
    ],
)
def test_another_layout_is_refused_before_the_first_step(reply: Any, message: str) -> None:
    with serving(Script(reply)) as server, pytest.raises(EvalkitError, match=message) as caught:
        loaded(server.url)
    assert "Nothing was executed" in str(caught.value)


def test_metadata_of_another_layout_is_refused() -> None:
    with serving(hold(7), metadata={"action_dim": 8}) as server:
        with pytest.raises(EvalkitError, match="action_dim 8, the adapter expects 7"):
            loaded(server.url)
        assert server.seen == []


def test_xpolicylab_keeps_one_episode_at_a_time() -> None:
    sizes = {"arm_joint_state": 6, "ee_joint_state": 1}
    zeros = {f"{arm}_{part}": np.zeros(n) for arm in ("left", "right") for part, n in sizes.items()}
    script = Script(*[[zeros] * 5] * 3, [zeros] * 4, HangUp())
    with serving(script, dialect="xpolicylab") as server:
        policy = loaded(server.url, adapter="xpolicylab-robotwin-joint", chunk_len=5, check_motion=False)
        first, second = (testing.noise_request(policy.spec, index, 0) for index in (0, 1))
        testing.ask(policy, first)
        (reply,) = testing.ask(policy, second)
        assert set(reply.timings_ms) == {"adapt", "wire", "server"}
        assert server.resets == 3
        with pytest.raises(EpisodeFault, match=r"remembers one episode at a time, .* set run.workers=1"):
            policy.infer([replace(first, chunk_idx=1)])
        with pytest.raises(EpisodeFault, match=r"broke its form: actions must have the shape \(5, 6\), got \(4, 6\)"):
            policy.infer([replace(second, chunk_idx=1)])
        with pytest.raises(EpisodeFault, match="gave no reply: the server closed") as caught:
            policy.infer([replace(second, chunk_idx=2)])
        assert caught.value.retriable
        with pytest.raises(EpisodeFault, match="what the server remembers of the episode with it"):
            policy.infer([replace(second, chunk_idx=3)])


def test_a_server_with_sessions_and_seeds_gets_both(tmp_path: Path) -> None:
    text = (adapters.FOLDER / "evalkit-osc.yaml").read_text()
    path = tmp_path / "sessions.yaml"
    path.write_text(text + "session_key: session_id\nseed_key: seed\nresets: true\nkeeps_state: true\n")
    with serving(hold(7), metadata={"needs_session_id": True}) as server:
        policy = loaded(server.url, adapter=str(path))
        request = testing.noise_request(policy.spec, 0, 0)
        testing.ask(policy, request)
        assert (server.seen[-1]["seed"], server.seen[-1]["session_id"]) == (request.noise_seed, "episode 0")
        assert server.resets == 2
        assert "sent as 'seed'" in RemotePlugin().provenance(RemoteConfig(url=server.url, adapter=str(path)))["noise"]


def test_cameras_of_another_order_are_named() -> None:
    with serving(hold(14, rows=50)) as server:
        policy = loaded(server.url, adapter="pi0-robotwin")
        policy.reset("id", ROBOTWIN)
        swapped = replace(ROBOTWIN, cameras=(ROBOTWIN.cameras[0], *ROBOTWIN.cameras[:0:-1]))
        with pytest.raises(EpisodeFault, match="needs the cameras head_camera, left_camera, right_camera, got head"):
            policy.reset("id", swapped)


def test_reconnecting_stops_at_the_limit() -> None:
    with serving(hold(7)) as server:
        address = Address(url=server.url, timeout_s=1.0)
        client = Client(address, adapters.load("evalkit-osc"), Patience(connect_s=1.2, reply_s=2.0, attempts=9))
        client.metadata()
    started = time.monotonic()
    with pytest.raises(Exception, match=r"Connection refused|closed") as caught:
        client.ask({}, session="s", step=0, may_repeat=True)
    assert not isinstance(caught.value, NoReply) or "closed" in str(caught.value)
    assert time.monotonic() - started < 6


def test_the_hash_of_metadata_follows_its_content() -> None:
    one = metadata_sha256({"a": np.arange(3), "b": [1, None]})
    assert one == metadata_sha256({"b": [1, None], "a": np.arange(3)}) != metadata_sha256({"a": np.arange(4)})


def evalkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evalkit.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.sim
def test_a_whole_run_under_a_path_with_faults(tmp_path: Path) -> None:
    pytest.importorskip("robosuite", reason="robosuite is not installed")
    faults = [None, None, HangUp(), None, SayError("RuntimeError: no memory")]  # the probe; 2 chunks; an error
    with serving(Script(*faults), metadata={"served": "hold"}) as server:
        done = evalkit(
            *("run", "--policy", "remote", "--bench", "robosuite", "--tasks", "Lift", "--episodes", "3"),
            *("--out", str(tmp_path / "run"), "bench.max_steps=16", "run.video=false"),
            *(f"policy.remote.url={server.url}", "policy.remote.label=holds"),
        )
    assert done.returncode == 0, done.stderr
    first, second, third = open_run(tmp_path / "run").records()
    assert (first.outcome, first.steps, first.details) == ("failure", 16, {"reconnections": 1})
    assert {"policy/wire", "policy/server", "policy/adapt"} <= set(first.timings_s)
    assert (second.outcome, second.blame, second.attempts) == ("error", "policy", 1)
    assert "answered with an error: RuntimeError: no memory" in str(second.reason)
    assert third.outcome == "failure"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["policy"]["specs"]["remote"]["policy_id"] == "remote/holds"
    assert '"served": "hold"' in plan["policy"]["provenance"]["server metadata"]


@pytest.mark.sim
def test_a_server_that_is_gone_costs_retries_and_an_error(tmp_path: Path) -> None:
    pytest.importorskip("robosuite", reason="robosuite is not installed")
    with serving(Script(None, *[HangUp()] * 99)) as server:
        done = evalkit(
            *("run", "--policy", "remote", "--bench", "robosuite", "--tasks", "Lift", "--episodes", "1"),
            *("--out", str(tmp_path / "run"), "bench.max_steps=16", "run.video=false", "run.max_attempts=2"),
            f"policy.remote.url={server.url}",
        )
    assert done.returncode == 2
    (record,) = open_run(tmp_path / "run").records()
    assert (record.outcome, record.blame, record.attempts) == ("error", "policy", 2)
    assert "gave no reply: the server closed the connection (code 1011, gone) in 3 attempts" in str(record.reason)
