"""Memory of scoring a run: `python -m tests.bench.score_memory [--chunks 1000] [--size 64x80] [--workers 2]`.

In: a synthetic run of so many chunks, 8 frames of 3 views. Out: the peak resident memory of the process that spreads
and writes, and of the largest of those that score, as JSON.
Read next: `evalkit/score/run.py`; `tests/unit/test_score_memory.py`, which holds a small run against a large one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

CHUNKS_A_CLIP = 10
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from evalkit.score.chunk import ScoreOptions
from evalkit.score.run import score_run
import pyarrow.parquet as pq

if __name__ == "__main__":
    started = time.perf_counter()
    path = score_run(Path(sys.argv[1]), workers=int(sys.argv[2]), options=ScoreOptions(lpips_nets=()))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({
        "seconds": round(time.perf_counter() - started, 1),
        "rows": pq.read_metadata(path).num_rows,
        "spreading_process_mib": int(status["VmHWM"].split()[0]) // 1024,
        "largest_scoring_process_mib": workers // 1024,
    }))
"""


def measure(num_chunks: int, size: tuple[int, int], *, workers: int = 2) -> dict[str, float]:
    """Return seconds, rows and peak memory (MiB) of scoring a run of so many chunks in fresh processes."""
    from tests.doubles.scene import write_scene_run

    with tempfile.TemporaryDirectory() as folder:
        run, script = Path(folder) / "run", Path(folder) / "measure.py"
        script.write_text(MEASURE)
        write_scene_run(
            run,
            outcomes=["success"] * -(-num_chunks // CHUNKS_A_CLIP),
            num_chunks=CHUNKS_A_CLIP,
            num_frames=8,
            image_hw_px=size,
            alike=True,
        )
        done = subprocess.run([sys.executable, script, run, str(workers)], check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def main(chunks: int = 1000, size: str = "64x80", workers: int = 2) -> None:
    """Print what one run takes; the size is rows x columns."""
    height, width = map(int, size.split("x"))
    print(json.dumps(measure(chunks, (height, width), workers=workers)))


if __name__ == "__main__":
    typer.run(main)
