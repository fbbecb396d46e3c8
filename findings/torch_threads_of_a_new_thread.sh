#!/usr/bin/env bash
# What surprises: torch.set_num_threads(1) does not hold for matrix products and convolutions in a thread that is started
# later. Guess: the number holds for the process, and torch.get_num_threads() in the new thread says 1. MKL and oneDNN
# use all cores there, again and again, until the thread runs an operation that reads torch's number (a softmax, or
# get_num_threads itself, so asking cures it). So a server that runs a model or decodes latents in a worker thread may
# take all cores, whatever the main thread has set, and a measurement of "one thread" is one of all cores.
#
# Versions: torch 2.13.0 (CPU), numpy 1.26.4 (Python 3.11), OMP_NUM_THREADS not set, 2 cores or more.
# Seen on 2 cores, CPU time of the process over that of the thread: 20 convolutions 2.00, 20 matrix products 2.00; after
# get_num_threads() 1.00, after a softmax 1.00.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==1.26.4
unset OMP_NUM_THREADS MKL_NUM_THREADS
"$work/venv/bin/python" - <<'PY'
import os
import threading
import time

import torch
from torch.nn.functional import conv2d

torch.set_num_threads(1)
images, kernels, square = torch.randn(4, 64, 64, 64), torch.randn(64, 64, 3, 3), torch.randn(1000, 1000)


def convolve() -> None:
    conv2d(images, kernels)


def multiply() -> None:
    square @ square


def cores_used(work, first=lambda: None) -> float:
    """Return CPU time of the process over that of a new thread, which runs `first` and then `work` 20 times."""
    seen = []

    def run() -> None:
        first()
        process_s, thread_s = time.process_time(), time.thread_time()
        for _ in range(20):
            work()
        seen.append((time.process_time() - process_s) / (time.thread_time() - thread_s))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen[0]


assert len(os.sched_getaffinity(0)) > 1, "needs 2 cores"
bare = cores_used(convolve)
asked = cores_used(convolve, torch.get_num_threads)
after_softmax = cores_used(convolve, lambda: torch.softmax(square, 1))
product = cores_used(multiply)
print(f"set_num_threads(1), then in a new thread: convolutions use {bare:.2f} cores, matrix products {product:.2f}; "
      f"convolutions after get_num_threads() {asked:.2f}, after a softmax {after_softmax:.2f}")
assert min(bare, product) > 1.5, (bare, product)
assert max(asked, after_softmax) < 1.2, (asked, after_softmax)
PY
