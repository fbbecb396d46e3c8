"""What the GPU table counts, checked against PyTorch's own counter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.doubles.networks import ACTIONS, STATES, TINY, inputs_of, network_of
from xwam import cli
from xwam.serving import speed


@pytest.mark.parametrize("depth", [False, True])
def test_flops_are_those_that_pytorch_counts(depth: bool) -> None:
    network, (video, action, proprio, text) = network_of(), inputs_of(batch=1)
    geometry = network.geometry(video, ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), geometry)
    context = network.with_depth_text(network.encode_text(text))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(video, action, proprio, times, context, depth=depth)
    counted = counter.get_total_flops()
    estimated = speed.step_flops(TINY, geometry, num_text=5, depth=depth)
    assert estimated == pytest.approx(counted, rel=0.15)  # embeddings, time projection and heads are left out


def test_the_table_runs_on_a_cpu_at_tiny_size() -> None:
    geometry = network_of().geometry(inputs_of()[0], ACTIONS, STATES)
    where: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    rows = speed.time_rows(TINY, geometry, **where, steps=(1, 2), batches=(1, 2), compiling=(False,), rounds=1)
    assert [(row.batch, row.steps) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(min(row.ms, row.reference_ms, row.peak_frac) > 0 for row in rows)
    assert len(rows[0].cells()) == len(speed.COLUMNS)


def test_the_table_names_its_columns_and_has_a_row() -> None:
    table = speed.measure(size="nano", device="cpu", steps=[1], batches=[1], rounds=1, compiled=False)
    assert [column.header for column in table.columns] == list(speed.COLUMNS)
    assert table.row_count == 1
    with pytest.raises(ValueError, match=r"--size must be 5b or nano, got 6b\."):
        speed.measure(size="6b")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_speed_without_a_gpu_names_the_cpu_command() -> None:
    with pytest.raises(ValueError, match="found no CUDA device; without one, run `xwam speed --device cpu"):
        speed.measure()


@pytest.mark.parametrize("verb", ["show", "convert", "check-data", "statistics", "train"])
def test_every_verb_of_xwam_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert f"xwam {verb} " in " ".join(capsys.readouterr().out.split())


def test_mistakes_on_the_command_line_are_one_sentence_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", str(tmp_path / "nothing.safetensors")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xwam: There is no checkpoint at")
    assert cli.main(["convert", "somewhere", str(tmp_path / "new"), "--precision", "bfloat"]) == 2
    assert "The precision must be one of float32, bfloat16, float16, got 'bfloat'." in capsys.readouterr().err
    assert cli.main(["convert", "somewhere", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["show"]) == 2
    assert cli.main(["check-data"]) == 2


def test_verbs_of_other_modules_keep_their_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metadata.json").write_text('{"0000000": 12}')
    assert cli.main(["check-data", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().out
