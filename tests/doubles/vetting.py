"""A bench without physics whose expert solves some seeds, in as much time as it takes, and fails on demand.

In: which fault, and with which seed. Out: a bench plugin that `evalkit vet` vets in real worker processes.
Read next: `bench.py`, the bench that it extends; `tests/unit/test_vet.py`, which uses it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import MissingAssets
from evalkit.contracts.manifest import BadManifest, Manifest, TaskVettings, Vetting
from evalkit.contracts.types import Episode
from tests.doubles.bench import FakeBench, FakeEnv

FIRST_SEED = 100


@dataclass(frozen=True, kw_only=True)
class VettableConfig:
    """`fault` happens with `fault_seed` in the task `fault_task`; faults that pass happen while `mark` does not exist.

    Attributes:
        longest_s: A verdict takes a random time up to this, so that verdicts end in another order each time.
        planner: What the workers say of themselves.
    """

    fault: str = "none"
    fault_seed: int = 102
    fault_task: str = "Near"
    mark: str = ""
    longest_s: float = 0.03
    planner: str = "cpu"
    manifest: str = "vettable.json"
    max_steps: int = 20


def verdict(task: str, seed: int) -> Vetting:
    """Return the verdict of the double's expert, by hand: two of three seeds are accepted, fewer in `Far`."""
    if seed % 3 == 1 or (task == "Far" and seed % 2):
        return Vetting(seed=seed, accepted=False, reason=f"no plan reaches {seed / 10} m")
    sentences = {"seen": f"go {task}", "unseen": f"walk {task}"}
    state = f"{seed:064x}"
    return Vetting(seed=seed, accepted=True, instructions=sentences, expert_steps=10 + seed, first_state_sha256=state)


class VettableFakeBench(FakeBench):
    """The same bench; it evaluates the seeds that its expert solves."""

    name = "vettable"
    config_type = VettableConfig  # type: ignore[assignment]
    tasks = ("Near", "Far", "Away")

    def launch(self, config: Any, *, task: str, setting: str) -> WorkerLaunch:
        settings = {name: getattr(config, name) for name in VettableConfig.__dataclass_fields__}
        return WorkerLaunch(target="tests.doubles.vetting:VettableFakeEnv", kwargs={"task": task, **settings})

    def provenance(self, config: Any) -> dict[str, str]:
        return {"fake": "1"}

    def vetting_protocol(self, config: Any) -> str:
        return "vettable-3"

    def first_vetted_seed(self, config: Any) -> int:
        return FIRST_SEED

    def episodes_per_task(self, config: Any) -> int | None:
        return 4

    def manifest_path(self, config: Any) -> Path:
        return Path(config.manifest)

    def vetting_departures(self, config: Any, episodes: Sequence[Episode]) -> list[str]:
        return []

    def vetting_provenance(self, config: Any, episodes: Sequence[Episode]) -> dict[str, str]:
        return {"manifest": "not part of who vets"}

    def read_vetted_list(self, path: Path) -> Manifest:
        """Read `setting task seed seed ...`."""
        if not path.is_file():
            raise BadManifest(f"{path} is no list.")
        setting, task, *seeds = path.read_text().split()
        vettings = tuple(Vetting(seed=int(seed), accepted=True) for seed in seeds)
        entry = TaskVettings(setting=setting, task=task, vettings=vettings, vetted_by={"by": "others"})
        return Manifest(bench=self.name, protocol="vettable-3", entries=(entry,))


class VettableFakeEnv(FakeEnv):
    """A point on a line, and an expert."""

    def __init__(self, *, task: str, mark: str, longest_s: float, planner: str, **fault: Any) -> None:
        super().__init__(task=task, fault="none", fault_seed=0, step_s=0.0)
        kind, self._at = fault["fault"], (fault["fault_task"], fault["fault_seed"])
        if kind == "start_missing" and task == self._at[0]:
            raise MissingAssets("assets/moon")
        if kind == "start_raise" and task == self._at[0]:
            raise ImportError("no module named 'simulator'")
        pid = str(os.getpid()) if kind == "differs" else ""
        self.about = {"planner": planner + pid}
        self._kind, self._task, self._mark, self._longest_s = kind, task, Path(mark) if mark else None, longest_s

    def vet(self, seed: int, instructions: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        time.sleep(random.SystemRandom().uniform(0, self._longest_s))
        if (self._task, seed) == self._at and not (self._mark and self._mark.exists()):
            if self._mark:
                self._mark.touch()
            self._fail()
        vetting = verdict(self._task, seed)
        if instructions is not None and vetting.accepted:  # a sentence of another task cannot be said
            said = {split: text for split, text in instructions.items() if text.endswith(self._task)}
            vetting = replace(vetting, instructions=said)
        return vetting.to_json()

    def _fail(self) -> None:
        if self._kind == "die":
            os._exit(11)
        if self._kind == "hang":
            time.sleep(3600)
        if self._kind == "raise":
            raise RuntimeError("the renderer has gone")
        if self._kind == "missing":
            raise MissingAssets("assets/moon")
