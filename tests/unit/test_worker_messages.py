"""The messages between harness and env process: every one survives the wire, and anything else is refused."""

import os
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import EnvRaised, EpisodeFault, MissingAssets
from evalkit.contracts.types import Episode
from evalkit.contracts.worker import messages, wire
from evalkit.contracts.worker.client import STATES_PER_MESSAGE, EnvWorker
from tests.doubles.bench import FakeBench, FakeBenchConfig, FakeEnv
from tests.doubles.known import known

ACTIONS = np.arange(28, dtype=np.float32).reshape(2, 14)
MESSAGES = [
    messages.Make(target="a:B", kwargs={"task": "Near"}),
    messages.Made(spec={"env_id": "fake/Near"}, about={"python": "3.11"}),
    messages.Begin(seed=3, max_steps=20, render=True, instruction="go"),
    messages.Begun(solved=False, observation={"instruction": "go"}),
    messages.Advance(actions=ACTIONS, render_at=[4, 8], render_last=True),
    messages.Advanced(num_executed=2, success=True, frames=[], last={}, sim_s=0.1, render_s=0.2),
    messages.Observe(render=True),
    messages.Observed(observation={"instruction": "go"}),
    messages.Play(states=np.zeros((2, 5))),
    messages.Played(observations=[{"instruction": "go"}]),
    messages.Vet(seed=100_003),
    messages.Vetted(vetting={"seed": 100_003, "accepted": False, "reason": "the plan failed"}),
    messages.Close(),
    messages.Failed(kind="ValueError", reason="no such state"),
]


class PlayingEnv(FakeEnv):
    """Takes a state's first number as its position."""

    def play(self, state: np.ndarray) -> None:
        if not np.isfinite(state).all():
            raise ValueError("the recorded state holds numbers that are not finite")
        self._x = float(state[0])


class TaskedEnv(FakeEnv):
    """Says the planned instruction, unless the scene lacks what it names; its expert solves even seeds."""

    def instruct(self, instruction: str) -> None:
        if "banana" in instruction:
            raise ValueError("no banana in the scene")
        self._instruction = instruction

    def observe(self, *, render: bool) -> dict[str, Any]:
        return {**super().observe(render=render), "instruction": self._instruction}

    def vet(self, seed: int, instructions: Any = None) -> dict[str, Any]:
        if seed == 6:
            raise MissingAssets("objects/048_stapler", advice="Download the assets.")
        if seed == 8:
            return {"seed": seed, "accepted": float("nan")}
        return {"seed": seed, "accepted": seed % 2 == 0}


class EndingEnv(FakeEnv):
    """Does to its process what simulators do: prints, ends it, closes its output."""

    def advance(self, action: np.ndarray) -> bool:
        what = int(action[0])
        if what == 1:
            for _ in range(2000):
                print("x" * 1000)
                os.write(1, b"noise from a library\n" * 10)
        elif what == 2:
            exit()
        elif what == 3:
            sys.exit("no description of 120_plant")
        elif what == 4:
            sys.stdout.close()
            sys.stderr.close()
            os.close(1)
            os.close(2)
            raise RuntimeError("nothing to print on")
        elif what == 5:
            raise KeyboardInterrupt
        elif what == 6:
            raise GeneratorExit("a base exception")
        return super().advance(action)


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


def test_the_env_is_given_the_planned_instruction() -> None:
    (episode,) = FakeBench().plan_episodes(FakeBenchConfig(), task="Near", setting="default", num_episodes=1, seed=1)
    with closing(worker("tests.unit.test_worker_messages:TaskedEnv")) as tasked:
        for sentence in ("put it down", "pick it up"):
            start = tasked.begin(replace(episode, instruction=sentence), render=False)
            assert start.observation.instruction == sentence
        with pytest.raises(EnvRaised, match="ValueError: no banana in the scene") as caught:
            tasked.begin(replace(episode, instruction="eat the banana"), render=False)
        assert caught.value.blame == "env"
        assert not caught.value.retriable


def test_another_scene_than_the_planned_one_is_an_error() -> None:
    (episode,) = FakeBench().plan_episodes(FakeBenchConfig(), task="Near", setting="default", num_episodes=1, seed=1)
    with closing(worker()) as first:
        start = first.begin(episode, render=False)
        planned = known(start.first_state_sha256)
        first.check_start(replace(episode, first_state_sha256=planned), start)
        with pytest.raises(EpisodeFault, match=f"not the planned scene.* is {planned}, planned {'0' * 64}") as caught:
            first.check_start(replace(episode, first_state_sha256="0" * 64), start)
        assert not caught.value.retriable
    unknown = replace(start, first_state_sha256=None)
    with closing(worker()) as silent, pytest.raises(EpisodeFault, match=f"is unknown, planned {planned}"):
        silent.check_start(replace(episode, first_state_sha256=planned), unknown)


def test_a_plan_without_hashes_of_states_is_as_before() -> None:
    (episode,) = FakeBench().plan_episodes(FakeBenchConfig(), task="Near", setting="default", num_episodes=1, seed=1)
    assert "first_state_sha256" not in episode.to_json()
    planned = replace(episode, first_state_sha256="ab")
    assert Episode(**planned.to_json()) == planned


def test_the_expert_vets_a_seed() -> None:
    with closing(worker("tests.unit.test_worker_messages:TaskedEnv")) as tasked:
        assert [tasked.vet(seed) for seed in (3, 4)] == [{"seed": 3, "accepted": False}, {"seed": 4, "accepted": True}]
        with pytest.raises(EnvRaised, match=r"objects/048_stapler is missing\. Download the assets\.") as caught:
            tasked.vet(6)
        assert caught.value.misses_assets
        assert tasked.vet(2)["accepted"]
        with pytest.raises(EpisodeFault, match="a vetting must hold JSON values"):
            tasked.vet(8)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (2, r"SystemExit: the env asked its process to end \(exit code None\)"),
        (3, r"SystemExit: the env asked its process to end \(exit code no description of 120_plant\)"),
        (4, "RuntimeError: nothing to print on"),
        (5, "KeyboardInterrupt"),
        (6, "GeneratorExit: a base exception"),
    ],
)
def test_an_env_cannot_end_its_process(what: int, reason: str) -> None:
    (episode,) = FakeBench().plan_episodes(FakeBenchConfig(), task="Near", setting="default", num_episodes=1, seed=1)
    with closing(worker("tests.unit.test_worker_messages:EndingEnv")) as ending:
        ending.begin(episode, render=False)
        assert executed(ending, 1) == 1, "an env may print as much as it likes"
        with pytest.raises(EnvRaised, match=reason) as caught:
            executed(ending, what)
        assert not caught.value.retriable
        ending.begin(episode, render=False)
        assert executed(ending, 0) == 1, "the process must go on answering"


def executed(asked: EnvWorker, number: int) -> int:
    """Return how many actions a worker executes of one action of this number."""
    actions = np.full((1, 14), number, np.float32)
    asked.send_actions(actions, render_at=[], render_last=False, render_success=False)
    return asked.receive_outcome().num_executed


def test_an_answer_of_another_kind_ends_the_worker() -> None:
    asked = worker()
    with pytest.raises(EpisodeFault, match="the worker answered 'begin' with 'begun'"):
        asked.ask(messages.Begin(seed=0, max_steps=0, render=False), messages.Played)
    with pytest.raises(EpisodeFault):
        asked.ask(messages.Observe(render=False), messages.Observed)
    asked.close()
