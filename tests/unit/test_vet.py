"""Vetting: one manifest whatever workers, timing, faults and kills; no fault is a rejection.

In: a double whose verdicts take random times. Out: a verdict.
Read next: `evalkit/vet/`, `tests/doubles/vetting.py`.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evalkit
from evalkit.contracts.errors import EvalkitError, RunFolderError, UnknownName
from evalkit.contracts.manifest import BadManifest, Manifest, TaskVettings, Vetting, read_manifest, write_manifest
from evalkit.vet.import_lists import import_lists
from evalkit.vet.journal import Journal
from evalkit.vet.lanes import Experts
from evalkit.vet.run import TaskOutcome, make_vet, run_vet
from evalkit.vet.search import FirstAccepted
from evalkit.vet.verify import tied_manifest, verify
from tests.doubles.configured import bench_of
from tests.doubles.vetting import FIRST_SEED, verdict

BENCH = "tests.doubles.vetting:VettableFakeBench"


def experts(workers: int = 2, setting: str = "default", timeout_s: float = 60.0, **config: Any) -> Experts:
    """Return the double's experts."""
    return Experts(bench=bench_of(BENCH, **config), setting=setting, workers=workers, timeout_s=timeout_s)


def vet(out: Path, by: Experts | None = None, **wanted: Any) -> dict[str, TaskOutcome]:
    """Vet, and return the outcome of each task."""
    return {outcome.task: outcome for outcome in run_vet(make_vet(by or experts(), out=out, **wanted))}


def by_hand(task: str, episodes: int) -> tuple[Vetting, ...]:
    """Return the vettings that count, one after the other, as RoboTwin's own loop finds them."""
    vettings: list[Vetting] = []
    seed = FIRST_SEED
    while sum(vetting.accepted for vetting in vettings) < episodes:
        vettings.append(verdict(task, seed))
        seed += 1
    return tuple(vettings)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a manifest that one worker made without a fault."""
    path = tmp_path_factory.mktemp("one") / "m.json"
    vet(path, experts(1), episodes=6)
    return path.read_bytes()


def test_a_manifest_has_what_a_simple_loop_finds(tmp_path: Path) -> None:
    outcomes = vet(tmp_path / "m.json")
    manifest = read_manifest(tmp_path / "m.json")
    assert (manifest.bench, manifest.protocol, manifest.settings) == ("vettable", "vettable-3", ("default",))
    for task in ("Near", "Far", "Away"):
        entry = manifest.find("default", task)
        assert entry is not None
        assert entry.vettings == by_hand(task, 4)
        assert entry.max_tries == 100
        assert {"by", "machine", "planner", "python", "fake"} <= set(entry.vetted_by)
        assert not [fact for name, fact in entry.vetted_by.items() if "/" in fact or name == "manifest"]
        assert outcomes[task].state == "vetted"
        assert outcomes[task].accepted == 4
        assert outcomes[task].tried == len(entry.vettings) == 4 + sum(outcomes[task].rejections.values())
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_python_does_the_same(tmp_path: Path, expected: bytes) -> None:
    seen: list[str] = []
    bench = evalkit.load_bench(BENCH, manifest=str(tmp_path / "m.json"))
    outcomes = evalkit.vet_seeds(bench, episodes=6, workers=2, on_change=lambda outcome: seen.append(outcome.task))
    assert [outcome.state for outcome in outcomes] == ["vetted"] * 3
    assert set(seen) == {"Near", "Far", "Away"}
    assert (tmp_path / "m.json").read_bytes() == expected


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_and_timing_change_nothing(tmp_path: Path, expected: bytes, workers: int) -> None:
    vet(tmp_path / "m.json", experts(workers), episodes=6)
    assert (tmp_path / "m.json").read_bytes() == expected


@pytest.mark.parametrize("fault", ["die", "hang", "raise"])
def test_a_passing_fault_changes_nothing(tmp_path: Path, expected: bytes, fault: str) -> None:
    by = experts(2, fault=fault, mark=str(tmp_path / "mark"), timeout_s=1.0)
    vet(tmp_path / "m.json", by, episodes=6)
    assert (tmp_path / "mark").exists()
    assert (tmp_path / "m.json").read_bytes() == expected


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        ("die", "not vetted", "seed 102: fake/Near: the worker ended with exit code 11"),
        ("raise", "not vetted", "seed 102: fake/Near: RuntimeError: the renderer has gone (3 attempts)"),
        ("missing", "skipped", "assets/moon is missing."),
        ("start_missing", "skipped", "assets/moon is missing."),
        ("start_raise", "not vetted", "no module named 'simulator'"),
    ],
)
def test_a_lasting_fault_ends_its_task_only(tmp_path: Path, fault: str, state: str, reason: str) -> None:
    outcomes = vet(tmp_path / "m.json", experts(2, fault=fault))
    assert outcomes["Near"].state == state
    assert reason in str(outcomes["Near"].reason)
    manifest = read_manifest(tmp_path / "m.json")
    assert [entry.task for entry in manifest.entries] == ["Away", "Far"]
    for entry in manifest.entries:
        assert entry.vettings == by_hand(entry.task, 4)


def test_the_limit_of_tries_names_its_counts(tmp_path: Path) -> None:
    outcomes = vet(tmp_path / "m.json", max_tries=7)
    assert outcomes["Near"].state == outcomes["Away"].state == "vetted"
    assert outcomes["Far"].state == "not vetted"
    assert outcomes["Far"].reason == ("2 of 7 tried seeds are accepted, 4 are needed; allow more with --max-tries")
    assert vet(tmp_path / "m.json")["Far"].state == "vetted"  # continues from the journal
    vet(tmp_path / "other.json")
    found, other = read_manifest(tmp_path / "m.json"), read_manifest(tmp_path / "other.json")
    assert [entry.vettings for entry in found.entries] == [entry.vettings for entry in other.entries]


def test_more_episodes_continue_the_manifest(tmp_path: Path, expected: bytes) -> None:
    vet(tmp_path / "m.json", episodes=2, max_tries=150)
    vet(tmp_path / "m.json", episodes=6, max_tries=150)
    assert (tmp_path / "m.json").read_bytes() == expected
    vet(tmp_path / "m.json", episodes=3)  # has more than enough
    assert (tmp_path / "m.json").read_bytes() == expected


def test_a_fault_while_a_vetting_is_extended_keeps_verdicts(tmp_path: Path) -> None:
    path, journal = tmp_path / "m.json", tmp_path / "m.json.journal.jsonl"
    vet(path, experts(1), tasks=["Near"], episodes=2)
    assert vet(path, experts(1, fault="raise", fault_seed=120), tasks=["Near"], episodes=20)["Near"].accepted == 13
    assert '"seed": 119' in journal.read_text()
    vet(path, tasks=["Far"], episodes=2)  # completes another task
    again = vet(path, experts(1, fault="raise", fault_seed=119), tasks=["Near"], episodes=20)
    assert again["Near"].state == "vetted", "seed 119 comes from the journal"
    entry = read_manifest(path).find("default", "Near")
    assert entry is not None
    assert entry.vettings == by_hand("Near", 20)
    assert [each.name for each in tmp_path.iterdir()] == ["m.json"]


def test_each_task_is_told_once_and_each_fault_again(tmp_path: Path) -> None:
    fault = ["bench.vettable.fault=raise", f"bench.vettable.mark={tmp_path / 'mark'}"]
    done = subprocess.run(command(tmp_path / "m.json", "--workers", "3", *fault), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [sum(line[:2] == ["vetted", f"{task}:"] for line in lines) for task in ("Near", "Far", "Away")] == [1, 1, 1]
    text = " ".join(done.stdout.split())
    assert "Near starts again, attempt 2 of 3: seed 102: fake/Near: RuntimeError: the renderer has gone" in text


def test_settings_and_tasks_share_a_file_in_any_order(tmp_path: Path) -> None:
    near, far = ["Near"], ["Far"]
    for name, calls in {
        "one.json": [("default", near + far), ("other", near)],
        "two.json": [("other", near), ("default", far), ("default", near)],
    }.items():
        for setting, tasks in calls:
            vet(tmp_path / name, experts(setting=setting), tasks=tasks, episodes=2)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_another_planner_needs_another_file(tmp_path: Path) -> None:
    vet(tmp_path / "m.json", tasks=["Near"])
    before = (tmp_path / "m.json").read_bytes()
    outcomes = vet(tmp_path / "m.json", experts(planner="mplib"))
    assert outcomes["Near"].state == "not vetted"
    assert "vetted with something else (planner: cpu and mplib): choose another file" in str(outcomes["Near"].reason)
    assert outcomes["Far"].state == outcomes["Away"].state == "vetted"
    assert read_manifest(tmp_path / "m.json").find("default", "Near") is not None
    assert before != (tmp_path / "m.json").read_bytes()


def test_workers_that_differ_are_refused(tmp_path: Path) -> None:
    by = experts(2, fault="differs", longest_s=0.2)
    outcome = vet(tmp_path / "m.json", by, tasks=["Far"], episodes=30, max_tries=400)["Far"]
    assert outcome.state == "not vetted"
    assert "two env processes differ (planner: cpu" in str(outcome.reason)


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Unknown task 'Neer'"):
        make_vet(experts(), tasks=["Neer"], out=tmp_path / "m.json")
    with pytest.raises(UnknownName, match="Unknown setting 'clean'"):
        make_vet(experts(setting="clean"), out=tmp_path / "m.json")
    plain = Experts(bench=bench_of("tests.doubles.bench:FakeBench"), setting="default")
    with pytest.raises(EvalkitError, match="Bench 'fake' has no seeds to vet"):
        make_vet(plain, out=tmp_path / "m.json")
    write_manifest(tmp_path / "m.json", Manifest(bench="vettable", protocol="vettable-2"))
    with pytest.raises(BadManifest, match="'vettable-2', the other of 'vettable-3'"):
        vet(tmp_path / "m.json")


def test_only_one_vetting_fills_a_manifest(tmp_path: Path) -> None:
    with Journal(tmp_path / "m.json"), pytest.raises(RunFolderError, match=r"Another vetting is filling .*m\.json"):
        vet(tmp_path / "m.json")


def command(out: Path, *more: str) -> list[str]:
    """Return a command line that vets the double."""
    return [sys.executable, "-m", "evalkit.cli", "vet", "--bench", BENCH, "--out", str(out), *more]


def test_a_killed_vetting_continues_to_the_same_file(tmp_path: Path, expected: bytes) -> None:
    path, journal = tmp_path / "m.json", tmp_path / "m.json.journal.jsonl"
    for size in (1, 700, 2_000):  # bytes of verdicts after which it is killed
        with subprocess.Popen(
            command(path, "--episodes", "6", "--workers", "2"), stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            while process.poll() is None and not (journal.exists() and journal.stat().st_size >= size):
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert journal.exists()
    done = subprocess.run(command(path, "--episodes", "6"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == expected
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_table_says_what_was_vetted(tmp_path: Path) -> None:
    fault = [f"bench.vettable.fault={value}" for value in ["missing"]]
    done = subprocess.run(command(tmp_path / "m.json", *fault), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "4 accepted seeds of 3 tasks, from seed 100 upward, at most 100 seeds of each; 3 tasks missing" in text
    assert "skipped Near: assets/moon is missing." in text
    assert "Away 4 6 no plan reaches * m: 2" in text
    assert f"manifest {read_manifest(tmp_path / 'm.json').sha256[:16]}" in text
    done = subprocess.run(command(tmp_path / "m.json", "--max-tries", "4", *fault), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 task missing" in done.stdout
    near = command(tmp_path / "n.json", "--tasks", "Near", *fault)
    done = subprocess.run(near, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Every task is skipped, the first because assets/moon is missing.")
    done = subprocess.run(command(tmp_path / "n.json", "--max-tries", "4"), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 3 tasks not vetted: Near, Far, Away; see the table.")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path / "m.json", "--dry-run"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tried    Near: 0.0 s per seed" in done.stdout
    assert "estimate 1 s with --workers 1 if every seed is accepted, at most" in done.stdout
    assert not list(tmp_path.iterdir())


def test_import_and_verify_print_what_they_found(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("default Near 101 102")
    done = subprocess.run(
        command(tmp_path / "m.json", "--import", str(tmp_path / "list")), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "m.json").read_bytes()
    verb = [*command(tmp_path)[:6], "--verify", str(tmp_path / "m.json"), "--rejected", "1"]
    done = subprocess.run(verb, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Near 2 of 2 1 of 1" in text
    assert "listed others" in text
    assert "here evalkit" in text
    assert "planner cpu" in text
    assert (tmp_path / "m.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        (["--verify", "--import", "a"], "--import and --verify are two calls"),
        (["--verify", "--dry-run"], "--dry-run is for vetting"),
        (["--verify", "a", "b"], "--verify takes one manifest or list"),
        (["Near"], "tasks are given as --tasks Near"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, more: list[str], cause: str) -> None:
    done = subprocess.run(command(tmp_path / "m.json", *more), capture_output=True, text=True)
    assert done.returncode == 2
    assert cause in done.stderr


def test_an_interrupted_vetting_ends_its_workers(tmp_path: Path) -> None:
    journal = tmp_path / "m.json.journal.jsonl"
    words = command(tmp_path / "m.json", "--workers", "2", "bench.vettable.longest_s=5")
    with subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as process:
        while process.poll() is None and not journal.exists():
            time.sleep(0.01)
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.startswith("error: Interrupted. The verdicts next to")
    command_lines = [Path(f"/proc/{pid}/cmdline") for pid in found.stdout.split()]
    assert len(command_lines) >= 2
    assert not [path for path in command_lines if path.exists() and path.read_bytes()]


def test_a_journal_cut_off_anywhere_is_continued(tmp_path: Path, expected: bytes) -> None:
    journal = tmp_path / "m.json.journal.jsonl"
    vet(tmp_path / "m.json", episodes=6, max_tries=6)  # ends before all tasks have enough
    whole = journal.read_bytes()
    assert whole.count(b"\n") >= 18
    for end in range(0, len(whole), len(whole) // 2):
        (tmp_path / "m.json").unlink(missing_ok=True)
        journal.write_bytes(whole[:end])
        vet(tmp_path / "m.json", episodes=6)
        assert (tmp_path / "m.json").read_bytes() == expected
    journal.write_bytes(b"{}\n" + whole)
    with pytest.raises(RunFolderError, match=r"Line 1 of .*journal\.jsonl is no verdict"):
        vet(tmp_path / "m.json", episodes=6)


def test_search_prefers_what_is_needed() -> None:
    search = FirstAccepted(task="lift", first_seed=0, episodes=2, max_tries=4)
    given = [search.next_seed(certain=True)]
    search.running.add(0)
    given.append(search.next_seed(certain=True))
    search.running.add(1)
    assert given == [0, 1]
    assert search.next_seed(certain=True) is None
    assert search.next_seed(certain=False) == 2
    search.running.remove(1)
    search.known[1] = Vetting(seed=1, accepted=False, reason="late")
    assert search.next_seed(certain=True) == 2
    for seed in (0, 2):
        search.known[seed] = Vetting(seed=seed, accepted=True)
    search.settle()
    assert search.state == "vetted"
    assert search.next_seed(certain=False) is None


def test_lists_are_imported_in_any_order(tmp_path: Path) -> None:
    for name, text in {"a": "default Near 100 103", "b": "other Far 102", "c": "default Far 104"}.items():
        (tmp_path / name).write_text(text)
    bench = bench_of(BENCH)
    first = import_lists(bench, [tmp_path / name for name in "abc"], tmp_path / "one.json")
    for name in "cab":
        second = import_lists(bench, [tmp_path / name], tmp_path / "two.json")
    assert first.sha256 == second.sha256
    assert import_lists(bench, [tmp_path / "one.json"], tmp_path / "three.json").sha256 == first.sha256
    (tmp_path / "d").write_text("default Near 100 104")
    before = (tmp_path / "one.json").read_bytes()
    with pytest.raises(BadManifest) as refusal:
        import_lists(bench, [tmp_path / "d"], tmp_path / "one.json")
    said = f"{tmp_path / 'd'} cannot be added to {tmp_path / 'one.json'}: default/Near has two different vettings"
    assert str(refusal.value).startswith(f"{said} (from seed 103)")
    assert "--out" in str(refusal.value)
    (tmp_path / "e").write_text("default Moon 100")
    with pytest.raises(UnknownName, match="Unknown task 'Moon'"):
        import_lists(bench, [tmp_path / "e"], tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == before


def test_verify_counts_agreements(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("default Near 100 101 102 103 106")  # 100, 103 and 106 are rejected here
    manifest = import_lists(bench_of(BENCH), [tmp_path / "list"], tmp_path / "m.json")
    found = verify(manifest, experts(3), rejected=2)
    (near,) = found.agreements
    assert (near.accepted, near.accepted_here, near.rejected, near.rejected_here) == (5, 2, 2, 0)
    assert list(near.differing) == [100, 103, 104, 105, 106]
    assert near.differing[104] == "accepted here"
    assert near.differing[106] == "no plan reaches 10.6 m"
    assert found.vetted_by["Near"]["planner"] == "cpu"
    (few,) = verify(manifest, experts(), tasks=["Near"], episodes=1).agreements
    assert (few.accepted, few.accepted_here, few.rejected) == (1, 0, 0)
    with pytest.raises(EvalkitError, match="no vettings of Far in the setting 'default'"):
        verify(manifest, experts(), tasks=["Near", "Far"])


def test_verify_of_a_manifest_made_here_agrees(tmp_path: Path) -> None:
    vet(tmp_path / "m.json")
    found = verify(read_manifest(tmp_path / "m.json"), experts(2), rejected=10)
    assert all(each.accepted == each.accepted_here == 4 for each in found.agreements)
    assert all(each.rejected == each.rejected_here > 0 for each in found.agreements)
    assert not any(each.differing for each in found.agreements)
    assert all(each.same_state == each.known_states == 4 for each in found.agreements)


def test_verify_names_seeds_with_another_first_state() -> None:
    vettings = (replace(verdict("Near", 101), first_state_sha256="ab" * 32), verdict("Near", 102))
    entry = TaskVettings(setting="default", task="Near", vettings=vettings)
    (near,) = verify(Manifest(bench="vettable", protocol="vettable-3", entries=(entry,)), experts()).agreements
    assert (near.same_state, near.known_states, near.accepted_here) == (1, 2, 2)
    assert near.differing == {101: "another first state"}


def test_verify_ties_a_list_to_the_scenes_here(tmp_path: Path) -> None:
    def listed(seed: int, **sentences: str) -> Vetting:
        return Vetting(seed=seed, accepted=True, instructions={"seen": "go Near", "unseen": "march Near", **sentences})

    vettings = (listed(101), listed(102, unseen="march Far"), listed(103), listed(104))  # 103 is rejected here
    entry = TaskVettings(setting="default", task="Near", vettings=vettings, vetted_by={"by": "others", "planner": "x"})
    manifest = Manifest(bench="vettable", protocol="vettable-3", entries=(entry,))
    found = verify(manifest, experts(3), episodes=3)
    (near,) = found.agreements
    assert (near.sentences, near.sentences_here) == (4, 3)
    assert near.differing[102] == "its sentence 'unseen' cannot be said of the scene here"
    (tied,) = tied_manifest(manifest, found, "default").entries
    assert [(each.seed, each.accepted) for each in tied.vettings] == [(101, True), (102, False), (103, False)]
    assert tied.accepted[0] == replace(verdict("Near", 101), instructions=vettings[0].instructions)
    assert (tied.vetted_by["by"], tied.vetted_by["planner"]) == ("others", "x")
    assert tied.vetted_by["verified_planner"] == "cpu"
    again = verify(replace(manifest, entries=(tied,)), experts())
    assert again.agreements[0].same_state == again.agreements[0].known_states == 1
    (twice,) = tied_manifest(replace(manifest, entries=(tied,)), again, "default").entries
    assert twice.vetted_by == tied.vetted_by


def test_verify_writes_and_extends_the_tied_manifest(tmp_path: Path) -> None:
    (tmp_path / "near").write_text("default Near 101 103 104")
    (tmp_path / "far").write_text("default Far 102")
    for name in ("near", "far", "near"):
        verb = [*command(tmp_path / "tied.json"), "--verify", str(tmp_path / name)]
        done = subprocess.run(verb, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "wrote 2 of 3 episodes that were tried, tied to their scenes" in " ".join(done.stdout.split())
    manifest = read_manifest(tmp_path / "tied.json")
    assert [[each.seed for each in entry.accepted] for entry in manifest.entries] == [[102], [101, 104]]
    assert all(each.first_state_sha256 for entry in manifest.entries for each in entry.accepted)
    verb = [*command(tmp_path / "tied.json"), "--verify", str(tmp_path / "tied.json")]
    done = subprocess.run(verb, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is the file that is verified" in done.stderr


def test_verify_refuses_a_manifest_of_another_protocol() -> None:
    with pytest.raises(BadManifest, match=r"holds episodes of 'vettable-2' .vettable., but those of 'vettable-3'"):
        verify(Manifest(bench="vettable", protocol="vettable-2"), experts())
    with pytest.raises(BadManifest, match=r"holds episodes of 'vettable-3' .robotwin., but"):
        verify(Manifest(bench="robotwin", protocol="vettable-3"), experts())
