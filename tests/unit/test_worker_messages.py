"""The messages between harness and env process: every one survives the wire, and anything else is refused."""

from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import EnvRaised, EpisodeFault
from evalkit.contracts.worker import messages, wire
from evalkit.contracts.worker.client import STATES_PER_MESSAGE, EnvWorker
from tests.doubles.bench import FakeBench, FakeBenchConfig, FakeEnv

ACTIONS = np.arange(28, dtype=np.float32).reshape(2, 14)
MESSAGES = [
    messages.Make(target="a:B", kwargs={"task": "Near"}),
    messages.Made(spec={"env_id": "fake/Near"}, about={"python": "3.11"}),
    messages.Begin(seed=3, max_steps=20, render=True),
    messages.Begun(solved=False, observation={"instruction": "go"}),
    messages.Advance(actions=ACTIONS, render_at=[4, 8], render_last=True),
    messages.Advanced(num_executed=2, success=True, frames=[], last={}, sim_s=0.1, render_s=0.2),
    messages.Observe(render=True),
    messages.Observed(observation={"instruction": "go"}),
    messages.Play(states=np.zeros((2, 5))),
    messages.Played(observations=[{"instruction": "go"}]),
    messages.Close(),
    messages.Failed(kind="ValueError", reason="no such state"),
]


class PlayingEnv(FakeEnv):
    """Takes a state's first number as its position."""

    def play(self, state: np.ndarray) -> None:
        if not np.isfinite(state).all():
            raise ValueError("the recorded state holds numbers that are not finite")
        self._x = float(state[0])


def worker(target: str | None = None) -> EnvWorker:
    config = FakeBenchConfig()
    launch = FakeBench().launch(config, task="Near", setting="default")
    spec = FakeBench().env_spec(config, task="Near", setting="default")
    return EnvWorker(replace(launch, target=target or launch.target), spec).build()


@pytest.mark.parametrize("message", MESSAGES, ids=[message.name() for message in MESSAGES])
def test_every_message_survives_the_wire(message: messages.Message) -> None:
    back = messages.from_wire(wire.unpack(wire.pack(message.to_wire())))
    assert type(back) is type(message)
    np.testing.assert_equal(vars(back), vars(message))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([1, 2], r"a message of an unknown kind \(list, None\)"),
        ({"op": "make"}, r"a message of an unknown kind \(dict, None\)"),
        ({"message": "dance"}, r"a message of an unknown kind \(dict, 'dance'\)"),
        ({"message": "begin", "seed": 3}, "a message 'begin' with wrong fields .*max_steps"),
        ({"message": "close", "now": True}, "a message 'close' with wrong fields .*now"),
    ],
)
def test_anything_else_is_refused(raw: Any, reason: str) -> None:
    with pytest.raises(wire.WireError, match=reason):
        messages.from_wire(raw)


def test_states_are_played_in_order_over_several_messages() -> None:
    states = np.arange(STATES_PER_MESSAGE + 3, dtype=np.float64)[:, None]
    with closing(worker("tests.unit.test_worker_messages:PlayingEnv")) as playing:
        playing.begin_playback()
        observations = list(playing.play(states))
        np.testing.assert_array_equal([one.proprio[0] for one in observations], states[:, 0])
        assert all(len(one.rgb) == 3 for one in observations)
        with pytest.raises(EnvRaised, match=r"fake/Near: ValueError: .* not finite") as caught:
            next(playing.play(np.full((1, 1), np.nan)))
        assert not caught.value.retriable
        assert len(list(playing.play(states[:1]))) == 1, "the process must survive an error of its env"


def test_an_env_that_cannot_play_says_so() -> None:
    with closing(worker()) as acting, pytest.raises(EnvRaised, match=r"AttributeError: .*'play'"):
        next(acting.play(np.zeros((1, 5))))


def test_an_answer_of_another_kind_ends_the_worker() -> None:
    asked = worker()
    with pytest.raises(EpisodeFault, match="the worker answered 'begin' with 'begun'"):
        asked.ask(messages.Begin(seed=0, max_steps=0, render=False), messages.Played)
    with pytest.raises(EpisodeFault):
        asked.ask(messages.Observe(render=False), messages.Observed)
    asked.close()
