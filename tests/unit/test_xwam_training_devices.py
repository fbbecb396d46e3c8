"""Two devices train as one does, each with all weights or with a share: the same clips, losses, one checkpoint."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.unit.test_xwam_training import RECIPE, root, trainer_of, weights_of  # noqa: F401 - root is a fixture
from xwam.training.curve import read_log
from xwam.training.trainer import LOG

ROOT = Path(__file__).resolve().parents[2]
SHORT = replace(RECIPE, num_steps=4, save_every=2, validate_every=2)
ONE_OF_TWO = """
import sys
from pathlib import Path
from tests.unit.test_xwam_training import trainer_of
from tests.unit.test_xwam_training_devices import SHORT, ask_for_fsdp2
if sys.argv[3] == "fsdp2":
    ask_for_fsdp2()
trainer = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]), SHORT)
assert trainer.accelerator.num_processes == 2, trainer.accelerator.state
spread = type(next(trainer._network.parameters())).__name__ == "DTensor"
assert spread == trainer.accelerator.is_fsdp2 == (sys.argv[3] == "fsdp2")
trainer.run(stop_at=int(sys.argv[4]))
trainer.accelerator.end_training()
"""

SHARDED = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from tests.unit.test_xwam_training import RECIPE, first_batch, trainer_of
from xwam import checkpoints
from xwam.training.objective import XwamObjective
from xwam.training.optim import optimizers_of
from xwam.training.state import Average, load_state, save_state

dist.init_process_group("gloo")
mesh = dist.init_device_mesh("cpu", (2,))
trainer = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]) / "unused")
batch, draws = first_batch(trainer)

def sharded(seed):
    objective = XwamObjective(checkpoints.fresh_network(trainer.bundle.model.network, seed=seed), RECIPE)
    return fully_shard(objective, mesh=mesh)

recipe = RECIPE.from_json({**RECIPE.to_json(), "optimizer": "adamw"})

def parts(seed):
    objective = sharded(seed)
    return objective, objective.network, Average(objective.network, 0.5), optimizers_of(objective.network, recipe)

def step(objective, network, average, optimizers, number):
    objective(batch, draws)["total"].backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    average.update(network, number)

path = Path(sys.argv[2]) / "state.safetensors"
first = parts(1)
step(*first, 0)
save_state(path, *first[1:], step=1, identity={}, writer=dist.get_rank() == 0)
dist.barrier()
second = parts(2)
assert load_state(path, *second[1:], identity={}) == 1
for objective in (first, second):
    step(*objective, 1)
pairs = zip(first[1].parameters(), second[1].parameters(), strict=True)
assert all(torch.equal(a.full_tensor(), b.full_tensor()) for a, b in pairs)
assert type(next(first[1].parameters())).__name__ == "DTensor"
dist.destroy_process_group()
"""


def ask_for_fsdp2() -> None:
    """Do what `accelerate launch --use_fsdp --fsdp_version 2` does; it does so for GPUs alone."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, DistributedType, PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin

    Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_on_two(code: str, data: Path, folder: Path, *more: str) -> None:
    shared = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    devices = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(data), str(folder), *more],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for device in devices:
        _, printed = device.communicate(timeout=240)
        assert device.returncode == 0, printed[-3000:]


def told(line: dict) -> tuple[str, dict[str, float]]:
    return line["kind"], {name: value for name, value in line.items() if name not in ("kind", "s_per_step")}


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["copies", "fsdp2"])
def test_two_devices_do_what_one_does(root, tmp_path, spread):  # noqa: F811
    for stop in (2, 4):  # stopped, and gone on with
        trainer_of(root, tmp_path / "one", SHORT).run(stop_at=stop)
        run_on_two(ONE_OF_TWO, root, tmp_path / "two", spread, str(stop))
        assert [line["step"] for line in read_log(tmp_path / "two" / LOG)][-1] == stop
    ours, theirs = ([told(line) for line in read_log(tmp_path / name / LOG)] for name in ("one", "two"))
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs] == ["train", "validation", "imagined"] * 2
    for (_, one), (_, two) in zip(ours, theirs, strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-3)
    one, two = (weights_of(tmp_path / name) for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=2e-4, rtol=1e-3)
    assert trainer_of(root, tmp_path / "two", SHORT).step == 4  # the state of two, read by one


@pytest.mark.slow
def test_a_state_does_not_know_how_weights_were_spread(root, tmp_path):  # noqa: F811
    run_on_two(SHARDED, root, tmp_path)
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        names = set(file.keys())
    network = trainer_of(root, tmp_path / "unused").bundle.network
    assert {f"weight/{name}" for name, _ in network.named_parameters()} <= names
