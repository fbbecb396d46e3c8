"""A plugin that lacks a member ends in a sentence that names it."""

import pickle

import pytest

from evalkit.contracts import plugins
from evalkit.contracts.errors import EvalkitError
from tests.doubles.bench import FakeBench
from tests.doubles.policy import FakePolicyPlugin


class NoDepartures(FakeBench):
    departures = None  # type: ignore[assignment]


class NoProvenance(FakeBench):
    provenance = "v0.2"  # type: ignore[assignment]


class NoMake(FakePolicyPlugin):
    make = None  # type: ignore[assignment]
    provenance = {"weights": "none"}  # type: ignore[assignment]  # noqa: RUF012


class Nothing:
    pass


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NoDepartures", r"is no bench plugin: it has no departures\(\)\."),
        ("NoProvenance", r"is no bench plugin: it has no provenance\(\)\."),
        (
            "Nothing",
            r"is no bench plugin: it has no name, summary, config_type, .*departures\(\), provenance",
        ),
    ],
)
def test_a_bench_that_lacks_a_member_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(EvalkitError, match=sentence):
        plugins.load_bench(f"{__name__}:{name}")


def test_a_policy_that_lacks_a_member_is_refused() -> None:
    with pytest.raises(EvalkitError, match=r"is no policy plugin: it has no provenance\(\), make\(\)\."):
        plugins.load_policy(f"{__name__}:NoMake")


def test_every_registered_plugin_has_its_members() -> None:
    for load, group in ((plugins.load_bench, plugins.BENCHES), (plugins.load_policy, plugins.POLICIES)):
        assert [load(name).name for name in plugins.names(group)] == plugins.names(group)  # type: ignore[attr-defined]
        for name in plugins.names(group):
            assert pickle.loads(pickle.dumps(load(name))).name == name, "recorders hand it to their processes"
    for bench in plugins.names(plugins.EXPERTS):
        assert set(plugins.load_expert(bench).tasks) <= set(plugins.load_bench(bench).tasks)
        assert plugins.recordable(plugins.load_bench(bench)).name == bench
