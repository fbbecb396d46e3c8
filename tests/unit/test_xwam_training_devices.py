"""Two devices train as one does, each with all weights or with a share: the same clips, losses, one checkpoint."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.doubles.training import RECIPE, trainer_of, weights_of
from xwam.training.log import read_log
from xwam.training.recipes import Recipe
from xwam.training.trainer import LOG

ROOT = Path(__file__).resolve().parents[2]
SHORT = replace(RECIPE, num_steps=4, save_every=2, validate_every=2)
HALF = replace(SHORT, precision="bf16", checkpointing=True)
ONE_OF_TWO = """
import sys
from pathlib import Path
import torch
from tests.doubles.training import trainer_of
from tests.unit.test_xwam_training_devices import HALF, SHORT, ask_for_fsdp2
how, recipe = sys.argv[3], HALF if "bf16" in sys.argv[3] else SHORT
if "fsdp2" in how:
    ask_for_fsdp2(recipe)
trainer = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]), recipe)
assert trainer.accelerator.num_processes == 2, trainer.accelerator.state
spread = type(next(trainer._network.parameters())).__name__ == "DTensor"
assert spread == trainer.accelerator.is_fsdp2 == ("fsdp2" in how)
kinds = set()
trainer._network.blocks[0].ffn.register_forward_hook(lambda part, given, out: kinds.add(out.dtype))
trainer.run(stop_at=int(sys.argv[4]))
assert not spread or kinds == {torch.bfloat16 if recipe == HALF else torch.float32}, kinds
trainer.accelerator.end_training()
"""

SHARDED = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from tests.doubles.training import RECIPE, first_batch, trainer_of
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


def ask_for_fsdp2(recipe: Recipe) -> None:
    """Do what `accelerate launch --use_fsdp --fsdp_version 2` does; it does so for GPUs alone."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, DistributedType, PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin

    Accelerator(mixed_precision=recipe.precision, cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    if recipe.precision != "no":
        plugin.set_mixed_precision(recipe.precision)
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


@pytest.fixture
def precision_is_open() -> Iterator[Any]:
    """Let Accelerate forget, before and after, which precision this process began with."""
    state = pytest.importorskip("accelerate.state").AcceleratorState
    state._reset_state(True)
    yield
    state._reset_state(True)


def losses_of(line: dict) -> tuple[str, dict[str, float]]:
    return line["kind"], {name: value for name, value in line.items() if name not in ("kind", "s_per_step")}


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["copies", "fsdp2", "fsdp2 in bf16"])
@pytest.mark.usefixtures("precision_is_open")
def test_two_devices_do_what_one_does(shared_root: Path, tmp_path: Path, spread: str) -> None:
    recipe = HALF if "bf16" in spread else SHORT
    for stop in (2, 4):  # stopped, and gone on with
        trainer_of(shared_root, tmp_path / "one", recipe).run(stop_at=stop)
        run_on_two(ONE_OF_TWO, shared_root, tmp_path / "two", spread, str(stop))
        assert [line["step"] for line in read_log(tmp_path / "two" / LOG)][-1] == stop
    ours, theirs = ([losses_of(line) for line in read_log(tmp_path / name / LOG)] for name in ("one", "two"))
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs] == ["train", "validation", "imagined"] * 2
    tolerance = 1e-3 if recipe == SHORT else 1e-2
    for (_, one), (_, two) in zip(ours, theirs, strict=True):
        assert two == pytest.approx(one, rel=tolerance, abs=tolerance)
    whole, spread_out = (weights_of(tmp_path / name) for name in ("one", "two"))
    for name, weight in whole.items():
        torch.testing.assert_close(weight, spread_out[name], atol=2e-4 if recipe == SHORT else 2e-3, rtol=1e-3)
    assert trainer_of(shared_root, tmp_path / "two", recipe).step == 4  # the state of two, read by one


@pytest.mark.slow
def test_a_state_does_not_know_how_weights_were_spread(shared_root: Path, tmp_path: Path) -> None:
    run_on_two(SHARDED, shared_root, tmp_path)
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        names = set(file.keys())
    network = trainer_of(shared_root, tmp_path / "unused").bundle.network
    assert {f"weight/{name}" for name, _ in network.named_parameters()} <= names
