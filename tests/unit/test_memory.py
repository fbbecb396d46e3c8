"""Freed memory stays in the process, so that it need not be cleared again.

Read next: `evalkit/contracts/memory.py`.
"""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, threading
import numpy as np
{keep}
def work():
    for _ in range(50):
        arrays = [np.ones((4, 80, 64, 64), np.float32) for _ in range(3)]
def counted():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=counted)
thread.start()
thread.join()
"""


def num_page_faults(keep: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_arrays_that_come_and_go_cost_no_page_faults() -> None:
    kept = num_page_faults("from evalkit.contracts.memory import keep_freed_memory; keep_freed_memory()")
    assert kept < 0.05 * num_page_faults("")
