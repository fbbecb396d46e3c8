"""X-WAM in a host: several clients at once get, to the bit, what `infer` gives one request at a time.

In: the shipped nano weights, passes of 1 and of 4 rows. Out: checks of actions and predictions.
Read next: `evalkit/serve/local.py`; `test_serve_host.py`, the host with a small policy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from evalkit.contracts.stepped import SteppedPolicy
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.serve.hosted import HostedPolicy
from evalkit.serve.local import PolicyHost
from tests.doubles.xwam import request_of
from xwam.policy import XwamPlugin, XwamPolicyConfig

WAIT_S = 120.0
NUM_REQUESTS = 8


@cache
def policy(width: int) -> SteppedPolicy:
    return XwamPlugin().make(XwamPolicyConfig(checkpoint="nano", width=width))


@cache
def requests() -> list[PolicyRequest]:
    """Return requests of several episodes, prompts of two lengths, with and without predictions."""
    prompts = ("Lift the cube.", "Stack the red cube on top of the green cube.")
    made = [
        request_of(seed, num_predicted_frames=(2, 0, 8)[seed % 3], instruction=prompts[seed % 2])
        for seed in range(NUM_REQUESTS)
    ]
    return [replace(each, episode_id=f"episode {idx}") for idx, each in enumerate(made)]


@cache
def alone(width: int) -> list[tuple[np.ndarray, Prediction | None]]:
    """Return actions and predictions of one request at a time."""
    replies = [policy(width).infer([request])[0] for request in requests()]
    return [(reply.actions, reply.prediction() if reply.prediction else None) for reply in replies]


def assert_equal(reply: PolicyReply, expected: tuple[np.ndarray, Prediction | None]) -> None:
    actions, prediction = expected
    assert np.array_equal(reply.actions, actions)
    assert (reply.prediction is None) == (prediction is None)
    if reply.prediction is not None and prediction is not None:
        predicted = reply.prediction()
        for name in ("rgb", "depth", "proprio"):
            assert np.array_equal(getattr(predicted, name), getattr(prediction, name)), name


@pytest.mark.parametrize("num_clients", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 4])
def test_clients_get_what_infer_gives_alone(width: int, num_clients: int) -> None:
    problems: list[BaseException] = []
    with PolicyHost(policy(width)) as host:
        hosted = HostedPolicy(host)

        def work(first: int) -> None:
            try:
                for idx in range(first, NUM_REQUESTS, num_clients):
                    assert_equal(hosted.infer([requests()[idx]])[0], alone(width)[idx])
            except BaseException as error:
                problems.append(error)

        alone(width)
        clients = [threading.Thread(target=work, args=(first,)) for first in range(num_clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(WAIT_S)
        load = host.load()
    assert problems == []
    assert load.num_rows > load.num_passes or min(width, num_clients) == 1


ONE_CORE = """
import threading, time
import torch
from xwam.serving.stepped import decoding

torch.set_num_threads(1)
images, kernels = torch.randn(4, 64, 64, 64), torch.randn(64, 64, 3, 3)

def work():
    process_s, thread_s = time.process_time(), time.thread_time()
    with decoding(torch.device("cpu")):
        for _ in range(5):
            torch.nn.functional.conv2d(images, kernels)
    print((time.process_time() - process_s) / (time.thread_time() - thread_s))

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_decoder_uses_as_many_cores_as_were_set() -> None:
    """Without asking torch in the new thread, its convolutions use all cores."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    ran = subprocess.run([sys.executable, "-c", ONE_CORE], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 1.3
