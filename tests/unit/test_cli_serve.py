"""The verb `serve`: what it prints, what it refuses, and how it ends.

In: command lines. Out: a verdict on text and exit codes.
Read next: `test_serve_server.py`, the server behind it.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from evalkit import testing
from evalkit.serve.client import ServedPolicy
from evalkit.serve.connection import Address
from xwam.policy import XwamPlugin, XwamPolicyConfig

ROOT = Path(__file__).resolve().parents[2]


def serve(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evalkit.cli", "serve", *arguments]
    environment = {**os.environ, "COLUMNS": "200", **environ}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_dry_run_shows_spec_address_and_how_to_connect() -> None:
    done = serve("--policy", "xwam", "--port", "8123", "--path", "/robot", "--dry-run")
    assert done.returncode == 0, done.stderr
    for line in (
        "policy   xwam/xwam-nano",
        "gives    32 actions of osc_delta_base, of which 8 are executed",
        "predicts RGB, depth, states (8 frames, 4 steps apart); also the outcome of given actions",
        "needs    2 static, 1 wrist, 128 x 128 px; osc_delta_base; left arm; 20 Hz",
        "address  ws://127.0.0.1:8123/robot",
        "connect  evalkit run --policy remote policy.remote.url=ws://127.0.0.1:8123/robot",
        'WebsocketClientPolicy("ws://127.0.0.1:8123/robot").infer(observation)',
    ):
        assert line in done.stdout, line


def test_an_open_server_without_a_token_is_warned_of(tmp_path: Path) -> None:
    done = serve("--policy", "hold", "--host", "0.0.0.0", "--dry-run")
    assert "Whoever reaches 0.0.0.0 can use the policy, and nothing is encrypted" in done.stdout
    assert "ws://THIS_MACHINE:8000" in done.stdout
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    token.chmod(0o644)
    done = serve("--policy", "hold", "--host", "0.0.0.0", "--token-file", str(token), "--dry-run")
    assert "Whoever reaches" not in done.stdout
    assert f"Other users of this machine can read the token: chmod 600 {token}" in done.stdout
    assert f"EVALKIT_REMOTE_API_KEY=$(cat {token}) evalkit run" in done.stdout
    assert "secret-token" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "scripted"], "Policy 'scripted' reads the planned episode"),
        (["--policy", "scripted", "--unix", "x.sock"], "Policy 'scripted' reads the planned episode"),
        (["--policy", "hold", "--width", "2"], "--width cannot be used: policy 'hold' answers one request at a time"),
        (["--policy", "hold", "--path", "robot"], "--path must begin with a slash, got 'robot'"),
        (["--policy", "hold", "--token-file", "nowhere"], "--token-file nowhere cannot be read: No such file"),
        (["--policy", "hold", "--host", "nowhere.invalid"], "Cannot listen on nowhere.invalid:8000: "),
        (["--policy", "hold", "policy.hold.seed=1"], "policy.hold.seed"),
        (["--policy", "hld"], "Unknown policy 'hld'. Did you mean 'hold'?"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(arguments: list[str], said: str) -> None:
    done = serve(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_is_no_socket_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name, said in (
        ("file", "there is a file of this name, which is no socket"),
        (".", "there is a folder of this name, which is no socket"),
        ("none/p.sock", f"the folder {tmp_path / 'none'} does not exist"),
    ):
        done = serve("--policy", "hold", "--unix", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"Cannot listen on the Unix socket {tmp_path / name}: {said}; choose another one." in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_weak_token_is_refused() -> None:
    done = serve("--policy", "hold", EVALKIT_SERVE_TOKEN="short")
    assert done.returncode == 2
    assert "EVALKIT_SERVE_TOKEN must hold a token of at least 8 letters" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "evalkit.cli", "serve", "--policy", "xwam", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        url = next(match[1] for line in lines if (match := re.match(r"address  (ws://\S+)", line)))
        with urllib.request.urlopen(url.replace("ws:", "http:") + "/healthz", timeout=10) as response:
            assert response.read() == b"OK\n"
        policy = XwamPlugin().make(XwamPolicyConfig())
        request = testing.noise_request(policy.spec, 0, 0)
        with ServedPolicy(Address(url=url)) as client:
            (reply,) = testing.ask(client, request)
        np.testing.assert_array_equal(reply.actions, policy.infer([request])[0].actions)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert rest.endswith("Stopped after 1 request.\n")
    assert errors == ""
