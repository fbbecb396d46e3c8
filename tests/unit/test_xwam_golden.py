"""X-WAM matches the released code's numbers; skipped without them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.parity import findings, xwam_data
from tests.parity import xwam as parity

FOLDER = findings.default_folder()


@pytest.mark.parametrize("item", parity.ITEMS)
def test_golden(item: str) -> None:
    compare, files = parity.ITEMS[item]
    absent = [file for file in files if not (FOLDER / file).exists()]
    if absent:
        pytest.skip(f"no {absent[0]} in {FOLDER}; set EVALKIT_SHARED to the folder that holds golden/xwam")
    with torch.inference_mode():
        failed = [finding for finding in compare(FOLDER) if not finding.passed]
    assert not failed


def unipc_of_one_step(path: Any, *, off: Any = 0.0) -> None:
    """Write the file of item `unipc` for one step, its trajectory wrong by `off`."""
    init, matrix = torch.ones(2, 3), torch.eye(3) * 0.3
    velocity = torch.tanh(init @ matrix) * (0.5 + 999 / 1000)
    sigma = 5 * 0.999 / (1 + 4 * 0.999)
    save_file(
        {
            "n1_init": init,
            "n1_matrix": matrix,
            "n1_timesteps": torch.tensor([999]),
            "n1_sigmas": torch.tensor([sigma, 0.0]),
            "n1_trajectory": (init - sigma * velocity)[None] + off,
        },
        path,
    )


def test_a_folder_without_files_fails_whatever_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(tmp_path) == 1
    assert parity.main(tmp_path, allow_absent=True) == 1
    assert "ABSENT" in capsys.readouterr().out


def test_absent_items_fail_unless_they_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unipc_of_one_step(tmp_path / "unipc.safetensors")
    assert parity.main(tmp_path) == 1
    assert "3 of 13 within tolerance" in capsys.readouterr().out
    assert parity.main(tmp_path, allow_absent=True) == 0
    assert findings.from_command_line(parity.main, ["--allow-absent", str(tmp_path)], tmp_path) == 0
    assert findings.from_command_line(parity.main, ["--allow", str(tmp_path)], tmp_path) == 2


def test_not_a_number_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unipc_of_one_step(tmp_path / "unipc.safetensors", off=math.nan)
    assert parity.main(tmp_path, allow_absent=True) == 1
    assert "FAILED unipc 1: trajectory: nan" in capsys.readouterr().out
    assert not xwam_data.absolute("one", np.array([math.nan]), np.array([0.0])).passed


def test_a_damaged_file_fails_its_item_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unipc_of_one_step(tmp_path / "unipc.safetensors")
    (tmp_path / "image_preprocessing.safetensors").write_bytes(b"\x00" * 7)
    (tmp_path / "robotwin_frames.npz").write_bytes(b"PK cut off")
    assert parity.main(tmp_path, allow_absent=True) == 1
    printed = capsys.readouterr().out.splitlines()
    failed = [line[:20] for line in printed if line.startswith("FAILED")]
    assert failed == ["FAILED frames: it co", "FAILED preprocessing"]
    assert sum(line.startswith("ok") for line in printed) == 3


def test_the_container_needs_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "config.yaml").write_text("model: {}\n")
    parity.main(tmp_path)
    assert "mp_rank_00_model_states.pt" in capsys.readouterr().out
