"""The stage that serves nano over a Unix socket, with passes of a fixed width.

In: requests with images of noise. Out: a check that served actions equal those in process, to the bit, alone and with
others at the same time; milliseconds of both.
Read next: `evalkit/serve/server.py` and `evalkit/serve/local.py`, which serve.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpu_check.running import Report

WIDTH, ROUNDS = 4, 10


def served(report: Report) -> None:
    """Serve requests; say what is missing where the server cannot run."""
    try:
        from evalkit import testing
        from evalkit.serve import client, connection, greeting, local, server
        from xwam.policy import XwamPlugin, XwamPolicyConfig
    except ModuleNotFoundError as error:
        if str(error.name).startswith("evalkit"):
            report.left_out("a served request", f"not in this build: there is no {error.name}")
        else:
            report.missing(str(error.name), "a served request")
        return
    config = XwamPolicyConfig(checkpoint="nano", device=report.settings.device, width=WIDTH)
    plugin = XwamPlugin("robosuite")
    policy = plugin.make(config)
    requests = [testing.noise_request(policy.spec, index, 0) for index in range(WIDTH)]
    expected = [policy.infer([request])[0].actions for request in requests]
    in_process_s = _fastest(lambda: policy.infer(requests[:1]))
    with TemporaryDirectory() as folder:
        listen = server.Listen(unix=Path(folder) / "socket")
        hello = greeting.Greeting(spec=policy.spec, width=WIDTH)
        with (
            local.PolicyHost(policy) as host,
            server.serving(host, hello, listen) as running,
            client.ServedPolicy(connection.Address(url=running.url)) as remote,
        ):
            for request in requests:
                remote.reset(request.episode_id, testing.env_for(policy.spec))
            alone = [remote.infer([request])[0].actions for request in requests]
            together = [reply.actions for reply in remote.infer(requests)]
            served_s = _fastest(lambda: remote.infer(requests[:1]))
    report.check("served alone: numbers that differ from those in process", _different(alone, expected), 0.0)
    report.check("served together: numbers that differ from those in process", _different(together, expected), 0.0)
    precision = plugin.provenance(config)["precision"].partition(";")[0]
    report.fact(type=precision, width=WIDTH, served_ms=1e3 * served_s, in_process_ms=1e3 * in_process_s)


def _different(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return float(sum(int((one != two).sum()) for one, two in zip(found, expected, strict=True)))


def _fastest(work: Any) -> float:
    """Return the shortest time of some work, seconds, until its actions have arrived."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)
