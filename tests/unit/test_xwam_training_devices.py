"""Two devices train as one does: the same clips, the same noise, one checkpoint."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.test_xwam_training import RECIPE, root, trainer_of, weights_of  # noqa: F401 - root is a fixture

ROOT = Path(__file__).resolve().parents[2]
ONE_OF_TWO = """
import sys
from pathlib import Path
from tests.unit.test_xwam_training import RECIPE, trainer_of
trainer = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]))
assert trainer.accelerator.num_processes == 2, trainer.accelerator.state
trainer.run()
trainer.accelerator.end_training()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_on_two(data: Path, folder: Path, **environ: str) -> None:
    shared = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        **environ,
    }
    devices = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, str(data), str(folder)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for device in devices:
        _, printed = device.communicate(timeout=240)
        assert device.returncode == 0, printed[-3000:]


@pytest.mark.slow
def test_two_devices_do_what_one_does(root, tmp_path):  # noqa: F811
    trainer_of(root, tmp_path / "one").run()
    run_on_two(root, tmp_path / "two")
    one, two = (weights_of(tmp_path / name) for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=2e-4, rtol=1e-3)
    assert RECIPE.batch_size == 4
