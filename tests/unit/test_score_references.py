"""The codec round trip in scores of a run: built again from the plan in any process, or a reason why not.

In: synthetic runs, plugins with and without a codec. Out: a verdict.
Read next: `evalkit/score/references.py`.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.types import Prediction
from evalkit.score.chunk import ScoreOptions
from evalkit.score.references import CodecChoice, find_codec, load_codec
from evalkit.score.results.table import read_scores
from evalkit.score.run import score_run
from evalkit.store.run_folder import open_run
from tests.doubles.known import known
from tests.doubles.scene import write_scene_run
from tests.doubles.xwam import PLUGIN, QUICK

SIZE = (24, 32)
NO_LPIPS = ScoreOptions(lpips_nets=())
HERE = "tests.unit.test_score_references"


@dataclass(frozen=True)
class Config:
    levels: int = 16
    folder: str = "here"


class Plugin:
    """Its codec keeps few grey levels and tells metres to the centimetre."""

    name = summary = "coarse"
    config_type = Config

    def spec(self, config: Any) -> None:
        raise NotImplementedError

    make = spec

    def provenance(self, config: Any) -> Any:
        return {"version": "1"}

    def codec(self, config: Any) -> Any:
        step = 256 // config.levels
        return lambda true: replace(true, rgb=true.rgb // step * step, depth=np.round(true.depth, 2))


class OtherPlugin(Plugin):
    def provenance(self, config: Any) -> Any:
        return {"version": "2"}


class BrokenPlugin(Plugin):
    def codec(self, config: Any) -> None:
        raise RuntimeError("no such file")


class WrongSizePlugin(Plugin):
    def codec(self, config: Any) -> Any:
        raise_it = ValueError("16 must divide 24")

        def codec(true: Any) -> None:
            raise raise_it

        return codec


class NoCodecPlugin(Plugin):
    codec = property()  # hasattr says no


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_scene_run(tmp_path / "run", outcomes=["success", "failure"], image_hw_px=SIZE, num_chunks=2)
    return tmp_path / "run"


def _find(run: Path, plugin: Any) -> Any:
    return find_codec(open_run(run).plan, policy=f"{HERE}:{plugin}")


def _ceiling(run: Path, plugin: Any, workers: Any = 1) -> Any:
    scores = read_scores(score_run(run, workers=workers, options=NO_LPIPS, codec=_find(run, plugin)))
    return scores, scores[scores["subject"] == "codec_round_trip"]


def test_the_codec_of_the_plans_policy_is_scored_in_every_chunk(run: Path) -> None:
    scores, ceiling = _ceiling(run, "Plugin")
    policy = scores[scores["subject"] == "policy"]
    assert len(ceiling) == len(policy)
    absrel = ceiling[ceiling["metric"] == "absrel/gt_mask_10m"]["value"]
    assert absrel.between(1e-5, 0.01).all()
    assert absrel.max() < policy[policy["metric"] == "absrel/gt_mask_10m"]["value"].min()
    states = ceiling[ceiling["metric"] == "ee_position_mm/euclidean"]["value"]
    assert (states == 0.0).all()


def test_processes_load_it_each_for_themselves(run: Path) -> None:
    alone, _ = _ceiling(run, "Plugin")
    together, _ = _ceiling(run, "Plugin", workers=2)
    assert alone.equals(together)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("OtherPlugin", "planned with another policy (its provenance differs in 'version'); the ceiling cannot be"),
        ("NoCodecPlugin", "policy 'noise' offers no codec."),
        ("Missing", "cannot be built again"),
        ("BrokenPlugin", "cannot be loaded: RuntimeError: no such file"),
        ("WrongSizePlugin", "the codec failed: ValueError: 16 must divide 24"),
    ],
)
def test_what_cannot_be_had_is_a_row_with_its_reason(run: Path, plugin: str, reason: str) -> None:
    _, ceiling = _ceiling(run, plugin)
    assert set(ceiling["status"]) == {"unavailable"}
    assert len(ceiling) == 4
    assert ceiling["value"].isna().all()
    assert all(reason in said for said in ceiling["reason"])


def test_a_policy_without_predictions_has_no_ceiling(run: Path) -> None:
    plan = open_run(run).plan
    still = replace(plan, policy=replace(plan.policy, specs={"hold": {"predicts": []}}))
    assert find_codec(still) is None


def test_settings_may_change_where_the_weights_lie(run: Path) -> None:
    found = find_codec(open_run(run).plan, policy=f"{HERE}:Plugin", changes={"folder": "there"})
    assert isinstance(found, CodecChoice)
    assert '"folder": "there"' in found.settings


def test_the_verb_says_it(run: Path) -> None:
    arguments = ["score", "run", str(run), "--workers", "1", "--lpips", "none"]
    said = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert "The codec round trip (the ceiling) is unavailable, because policy 'noise' cannot be built again" in said
    done = CliRunner().invoke(app, [*arguments, "--policy", f"{HERE}:Plugin"])
    assert done.exit_code == 0
    assert "ceiling" not in done.stdout


class WeightsPlugin(Plugin):
    def provenance(self, config: Any) -> Any:
        if config.folder == "gone":
            raise FileNotFoundError(config.folder)
        return {"weights": "7" if config.folder == "other" else "1", "levels": str(config.levels)}


def _find_weights(run: Path, planned_folder: str, **changes: Any) -> Any:
    plan = open_run(run).plan
    provenance = {"weights": "1", "levels": "sixteen, in the words of an older version"}
    planned = replace(plan.policy, config={"levels": 16, "folder": planned_folder}, provenance=provenance)
    return find_codec(replace(plan, policy=planned), policy=f"{HERE}:WeightsPlugin", changes=changes)


def test_weights_and_settings_identify_a_policy_words_do_not(run: Path) -> None:
    assert isinstance(_find_weights(run, "here"), CodecChoice)
    assert isinstance(_find_weights(run, "gone", folder="here"), CodecChoice)
    assert isinstance(_find_weights(run, "other", folder="here"), CodecChoice)
    assert "differs in 'weights'" in _find_weights(run, "other")
    assert "differs in 'levels'" in _find_weights(run, "here", levels=8)


def test_a_codec_asked_for_that_is_unavailable_keeps_scores(run: Path) -> None:
    score_run(run, workers=1, options=NO_LPIPS, codec=_find(run, "Plugin"))
    before = (run / "scores.parquet").read_bytes()
    arguments = ["score", "run", str(run), "--workers", "1", "--lpips", "none"]
    done = CliRunner().invoke(app, [*arguments, "--policy", f"{HERE}:OtherPlugin"])
    assert "Correct or leave out --policy" in str(done.exception)
    assert (run / "scores.parquet").read_bytes() == before
    lost = CliRunner().invoke(app, arguments)
    assert lost.exit_code == 0
    assert "has scores of codec_round_trip; the new file will have none." in " ".join(lost.stdout.split())
    assert f"evalkit report {run}" in " ".join(lost.stdout.split()).replace(" /", " /")


@pytest.mark.parametrize(
    ("setting", "said"),
    [("policy.noise.nowhere=1", "nowhere"), ("run.workers=2", "does not affect the codec")],
)
def test_a_mistyped_setting_is_refused_before_scoring(run: Path, setting: str, said: str) -> None:
    done = CliRunner().invoke(app, ["score", "run", str(run), "--policy", f"{HERE}:Plugin", setting])
    assert done.exit_code != 0
    assert said in " ".join((done.output + str(done.exception)).split())
    assert not (run / "scores.parquet").exists()


def test_xwam_offers_the_codec_of_its_policy() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (4, 3, 128, 128, 3), dtype=np.uint8)
    true = Prediction(rgb=rgb, depth=rng.uniform(0.3, 2.0, rgb.shape[:-1]).astype(np.float32), proprio=None)
    ours, theirs = PLUGIN.codec(QUICK)(true), PLUGIN.make(QUICK).round_trip(true)
    np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    np.testing.assert_array_equal(known(ours.depth), known(theirs.depth))
    assert callable(load_codec(CodecChoice(policy="xwam", settings=json.dumps(asdict(QUICK)))))
