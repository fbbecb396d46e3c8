"""Memory of scoring does not grow with the run.

In: synthetic runs of few and of many chunks. Out: a verdict.
Read next: `tests/bench/score_memory.py`, which measures.
"""

import pytest

from tests.bench.score_memory import measure

SIZE = (64, 80)
PROCESSES = ("spreading_process_mib", "largest_scoring_process_mib")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_chunks_take_the_memory_of_a_hundred() -> None:
    few, many = measure(100, SIZE), measure(1000, SIZE)
    assert many["rows"] > 9 * few["rows"]
    for process in PROCESSES:
        assert many[process] < few[process] + 40, (few, many)
