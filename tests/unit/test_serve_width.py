"""The width of a pass, chosen by measured times.

In: policies whose passes take a stated time. Out: checks of the choice.
Read next: `evalkit/serve/width.py`.
"""

from __future__ import annotations

import importlib

import pytest

from evalkit.cli.main import main
from evalkit.serve.width import TimedWidth, best_width, choose_width, time_width
from tests.doubles.stepped import NUM_ACTION_PASSES, SmallSteps, small_request


def timed(**pass_ms: float) -> list[TimedWidth]:
    return [TimedWidth(width=int(name[1:]), pass_s=ms / 1e3, actions_s=2 * ms / 1e3) for name, ms in pass_ms.items()]


@pytest.mark.parametrize(
    ("pass_ms", "bound_s", "width"),
    [
        ({"w1": 10, "w2": 11, "w4": 12, "w8": 24}, None, 4),  # 4 and 8 are equally good
        ({"w1": 10, "w2": 20, "w4": 40}, None, 1),  # nothing is gained
        ({"w1": 10, "w2": 19.2, "w4": 38}, None, 1),  # within 5 %
        ({"w1": 10, "w2": 12, "w4": 14}, 0.025, 2),  # 4 takes 28 ms
        ({"w1": 10, "w2": 12}, 0.001, 1),  # none keeps the bound: the fastest
    ],
)
def test_smallest_width_near_the_best(pass_ms: dict[str, float], bound_s: float | None, width: int) -> None:
    assert best_width(timed(**pass_ms), max_actions_s=bound_s).width == width


def test_passes_are_timed_with_all_rows_in_use() -> None:
    policy = SmallSteps(width=3, pass_s=0.01)
    measured = time_width(policy, small_request(0), rounds=2)
    assert all(len(one) == 3 for one in policy.passes)
    assert measured.width == 3
    assert 0.01 <= measured.pass_s < 0.1
    assert measured.actions_s >= NUM_ACTION_PASSES * 0.01


def test_a_width_is_chosen_among_measured_ones() -> None:
    """A pass of any width takes 20 ms, so the widest has the most rows per second."""
    chosen, rows = choose_width(lambda width: SmallSteps(width=width, pass_s=0.02), small_request(0), (1, 2, 4))
    assert [each.width for each in rows] == [1, 2, 4]
    assert chosen.width == 4
    with pytest.raises(ValueError, match="no width"):
        choose_width(lambda width: SmallSteps(width=width), small_request(0), ())


def test_a_server_takes_the_width_that_it_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = importlib.import_module("evalkit.cli.serve")
    monkeypatch.setattr(serve, "WIDTHS", (1, 2))
    quick = ["checkpoint=random-nano", "num_video_steps=2", "num_action_steps=1"]
    chosen = serve._best_width("xwam", [f"policy.xwam.{each}" for each in quick])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in printed] == ["1 rows", "2 rows"]
    assert [line.split(" rows")[0].strip() for line in printed if line.endswith("<- taken")] == [str(chosen)]


@pytest.mark.parametrize(
    ("policy", "width", "sentence"),
    [
        ("xwam", "auto", "to be measured"),
        ("xwam", "3", "3 requests in a forward pass"),
        ("xwam", "wide", "--width must be a number of rows or auto, got 'wide'."),
        ("hold", "auto", "policy 'hold' answers one request at a time."),
    ],
)
def test_the_width_of_a_server(
    policy: str, width: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["evalkit", "serve", "--policy", policy, "--width", width, "--dry-run"])
    with pytest.raises(SystemExit):
        main()
    captured = capsys.readouterr()
    assert sentence in captured.out + captured.err
