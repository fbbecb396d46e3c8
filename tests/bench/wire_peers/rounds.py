"""What the clients of the wire's benchmark share: the observation, and rounds of requests on command.

In: a number of requests on each line of the standard input. Out: a line of JSON for each: milliseconds of every
request, CPU seconds of the process.
Read next: `../wire.py`, which starts both sides. Needs numpy alone, because it runs in interpreters of others.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

VIEWS, SIZE_PX, CHUNK = 3, 128, 8
COLUMNS = 14
SENTENCE = "lift the red cube"


def images() -> np.ndarray:
    """Return V,H,W,3 uint8 of noise."""
    return np.random.default_rng(0).integers(0, 256, (VIEWS, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def state() -> np.ndarray:
    """Return 16 float32."""
    return np.array([0.5, 0.0, 0.4, 0.0, 1.0, 0.0, 0.0, 1.0] + [0.0] * 8, np.float32)


def answer(ask: Callable[[], np.ndarray]) -> None:
    """Ask as often as each line says; `ask` returns the actions, which are looked at."""
    print("ready", flush=True)
    for line in sys.stdin:
        spent_ms, cpu_s = [], time.process_time()
        for _ in range(int(line)):
            started = time.perf_counter()
            actions = ask()
            spent_ms.append((time.perf_counter() - started) * 1e3)
            assert np.asarray(actions).shape == (CHUNK, COLUMNS)
        print(json.dumps({"ms": spent_ms, "cpu_s": time.process_time() - cpu_s}), flush=True)
