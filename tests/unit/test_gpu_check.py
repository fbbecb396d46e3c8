"""tools/gpu-check: every stage gives a line, whatever happens in it, with nothing but torch, numpy and safetensors.

In: the tool, run on a CPU at small sizes. Out: a verdict.
Read next: `tools/gpu_check/main.py`.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import einops
import pytest
import torch
from gpu_check import cases, codecs, main, make_goldens, running, standins, training
from gpu_check.table import table
from safetensors.torch import load_file

import evalkit.serve
from xwam.training.recipes import FINETUNING

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu-check"

NEEDED = {"torch", "numpy", "safetensors"}
OF_TORCH = {"filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy"}
OTHERS = sorted(
    name
    for name, packages in metadata.packages_distributions().items()
    if not {package.lower() for package in packages} & (NEEDED | OF_TORCH | {"typing_extensions", "evalkit"})
)
"""Every importable name of the installed packages, without the three that the tool needs and what torch needs."""

BARE = f"""
import importlib.util, runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OTHERS!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Missing())
find_spec = importlib.util.find_spec
def find_or_none(name, package=None):
    try:
        return find_spec(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_or_none
sys.argv = ["gpu-check", *sys.argv[1:]]
runpy.run_path({str(TOOL)!r}, run_name="__main__")
"""
"""Runs the tool as where no other package is installed."""


def lines_of(path: Path) -> dict[str, Any]:
    return {line["stage"]: line for line in map(json.loads, path.read_text().splitlines())}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage without any other package, one of them made to fail."""
    out = tmp_path_factory.mktemp("gpu") / "lines.jsonl"
    arguments = ["--device", "cpu", "--quick", "--out", str(out), "--fail", "peak", "--seconds", "280"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=False, env=env, timeout=290
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert done.stdout == out.read_text()
    return out


def test_every_stage_gives_a_line(bare: Path) -> None:
    lines = lines_of(bare)
    assert list(lines) == [*(stage.name for stage in main.STAGES), "summary"]
    assert all({"stage", "ok", "seconds"} <= set(line) for line in lines.values())


def test_a_failed_stage_is_named_and_the_others_go_on(bare: Path) -> None:
    lines = lines_of(bare)
    assert lines["peak"]["ok"] is False
    assert "RuntimeError: this stage was asked to fail" in lines["peak"]["error"]
    assert lines["summary"]["failed"] == ["peak"]
    assert lines["summary"]["passed"] == ["environment", "parity", "nano", "model", "training"]


def test_missing_packages_are_named(bare: Path) -> None:
    lines = lines_of(bare)
    assert {"einops", "jaxtyping", "scipy", "diffusers", "transformers"} <= set(lines["summary"]["missing_packages"])
    assert lines["summary"]["skipped"] == ["served", "scoring", "codecs"]
    assert lines["codecs"]["skipped"] == "without diffusers, transformers there is nothing to do"


def test_parity_holds_in_both_types(bare: Path) -> None:
    names = [check["name"] for check in lines_of(bare)["parity"]["checks"] if check["ok"]]
    parts = [f"golden: {part}, {kind}" for kind in ("float32", "bfloat16") for part in ("network", "sampler", "losses")]
    assert all(any(name.startswith(part) for name in names) for part in parts)


def test_a_row_of_a_pass_has_the_same_bits_in_any_company(bare: Path) -> None:
    line = lines_of(bare)["model"]
    (check,) = [check for check in line["checks"] if check["name"].startswith("width 4, eager: numbers of a row")]
    assert (check["error"], check["ok"]) == (0.0, True)
    assert {"what": "eager passes as CUDA graphs", "reason": "they need a GPU"} in line["left_out"]


def test_a_served_request_gives_the_actions_of_one_in_process() -> None:
    line = run(lambda report: importlib.import_module("gpu_check.served").served(report), total_s=120, limit_s=100.0)
    assert line["ok"], line
    assert [check["error"] for check in line["checks"]] == [0.0, 0.0]
    assert line["served_ms"] > 0 < line["in_process_ms"]


def test_a_build_without_a_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evalkit.serve.server", None)
    monkeypatch.delattr(evalkit.serve, "server", raising=False)  # where another test imported it
    line = run(lambda report: importlib.import_module("gpu_check.served").served(report))
    assert line["left_out"][0]["reason"].startswith("not in this build")


def test_the_table_shows_times_and_failures(bare: Path) -> None:
    text = table(bare)
    assert re.search(r"\| chunk of actions \| eager \| 1 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| - \|", text)
    assert "| peak | 0 of 0 | RuntimeError: this stage was asked to fail" in text


def stage(work: Any, **settings: Any) -> running.Stage:
    return running.Stage(name="some", what="", work=work, **{"limit_s": 20.0, **settings})


def run(work: Any, total_s: float = 30.0, **settings: Any) -> dict[str, Any]:
    chosen = running.Settings(device="cpu", quick=True)
    line, _ = running.run_stages([stage(work, **settings)], chosen, total_s)
    return line


def test_a_stage_that_takes_too_long_keeps_its_results() -> None:
    def endless(report: running.Report) -> None:
        report.row(ms=1.0)
        time.sleep(60)

    line = run(endless, limit_s=0.5)
    assert line["ok"] is False
    assert line["rows"] == [{"ms": 1.0}]
    assert line["error"].startswith("stopped after 0 s") or line["error"].startswith("stopped after 1 s")
    assert line["seconds"] < 10


def test_a_stage_that_dies_is_reported() -> None:
    line = run(lambda report: os.kill(os.getpid(), signal.SIGKILL))
    assert (line["ok"], line["error"]) == (False, "the process of the stage ended with signal SIGKILL")


def test_a_stage_without_enough_time_is_skipped() -> None:
    line = run(lambda report: None, total_s=3.0, least_s=5.0)
    assert line["ok"] is None
    assert "3 s are left of 3" in line["skipped"]


def test_a_check_that_is_not_a_number_fails() -> None:
    line = run(lambda report: report.check("x", float("nan"), 1.0))
    assert line["ok"] is False
    assert line["checks"] == [{"name": "x", "error": "nan", "limit": 1.0, "ok": False}]


PATTERNS = {
    pattern
    for path in (ROOT / "xwam").rglob("*.py")
    for pattern in re.findall(r'rearrange\([^"]*?"([^"]+)"', path.read_text())
}


def test_the_stand_in_rearranges_as_einops_does() -> None:
    assert len(PATTERNS) > 8
    for pattern in sorted(PATTERNS):
        before = pattern.partition("->")[0]
        names = re.findall(r"\w+", before)
        sizes = {name: 2 + index % 3 for index, name in enumerate(names)}
        groups = [(grouped or alone).split() for grouped, alone in re.findall(r"\(([^)]*)\)|(\w+)", before)]
        shape = [torch.Size([sizes[name] for name in group]).numel() for group in groups]
        given = {name: sizes[name] for group in groups for name in group[1:]}
        tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
        assert torch.equal(standins.rearrange(tensor, pattern, **given), einops.rearrange(tensor, pattern, **given))


IMAGES = {"rgb_VCHW", "grey_VHW", "env_rgb", "env_depth_mm"}
"""Decoded images, whose pixels may move by one from one processor to the next; stage `nano` compares them."""


def test_goldens_are_what_the_reference_gives(tmp_path: Path) -> None:
    """If this fails after a wanted change, run `python tools/gpu_check/make_goldens.py` and say why in the commit."""
    make_goldens.main(tmp_path)
    stored = sorted(path.name for path in cases.GOLDENS.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == stored
    for name in stored:
        made, kept = load_file(tmp_path / name), load_file(cases.GOLDENS / name)
        assert set(made) == set(kept)
        for tensor in set(made) - IMAGES:
            torch.testing.assert_close(made[tensor], kept[tensor], rtol=1e-3, atol=1e-3, msg=f"{name}: {tensor}")


def test_the_training_step_takes_the_recipes_settings() -> None:
    for name, value in vars(training.RECIPE).items():
        assert getattr(FINETUNING, name) == value, name


def test_full_sizes_are_those_of_the_released_parts() -> None:
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        text: Any = UMT5EncoderModel(UMT5Config(**codecs.UMT5_XXL))
        vae: Any = AutoencoderKLWan(**codecs.WAN22_VAE)
    assert sum(weight.numel() for weight in text.parameters()) == 5_680_910_336  # 11.36 GB in bfloat16
    assert sum(weight.numel() for weight in vae.parameters()) == pytest.approx(704.7e6, rel=1e-3)  # 2.82 GB in float32
