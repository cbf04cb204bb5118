"""Ctrl-C in the middle of every stage: it ends at once, leaves nothing behind, the same command finishes the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ov_model.eval.benchmarks import Places, find_benchmark
from ov_model.eval.results import current
from ov_model.train.metrics import read_metrics
from tests.eval.commands import small
from tests.eval.fixtures import fixture
from tests.eval.hub import hub
from tests.eval.models import tiny_checkpoint
from tests.faults.processes import Running, expect_tidy, lines, outputs, ov
from tests.faults.stages import TOOLS, Playground
from tests.train.samples import write_codec_data

STEPS = 160
TOLD = "interrupted; run the same command again to go on from here"


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return Playground.make(tmp_path_factory.mktemp("interrupt"))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_stage(playground: Playground, tmp_path: Path, tool: str) -> None:
    out = tmp_path / "out"
    run = playground.start(tool, out)
    run.wait_until(lambda: playground.under_way(tool, out))
    said = run.interrupt()
    assert TOLD in said
    assert "Traceback" not in said
    assert not list(out.rglob("*.lock"))
    playground.start(tool, out).finish()
    playground.expect_as_undisturbed(tool, out)


def test_a_stage_before_its_first_sample_is_done(playground: Playground, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = playground.start("stage1", out)
    run.wait_until(
        lambda: any(out.glob("*.npy")) or any(out.glob(".*.tmp")) or bool(run.alive("multiprocessing.spawn"))
    )
    assert TOLD in run.interrupt()
    playground.start("stage1", out).finish()
    playground.expect_as_undisturbed("stage1", out)


def test_training(tmp_path: Path) -> None:
    jsonl = write_codec_data(tmp_path / "data")
    settings = (f"optim.max_steps={STEPS}", "optim.batch_size=1", "run.save_every=20", "run.zero=0")
    options = [part for setting in settings for part in ("--set", setting)]

    def train(out: Path) -> Running:
        return ov("train", "tiny", "--data", jsonl, "--out", out, "--nproc", 1, *options)

    train(tmp_path / "calm").finish()
    run = train(tmp_path / "out")
    run.wait_until((tmp_path / "out" / "checkpoint-20" / "complete.json").exists)
    said = run.interrupt()
    assert TOLD in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "export").exists()
    train(tmp_path / "out").finish()
    expect_tidy(tmp_path / "out")
    ours, theirs = (
        [values["loss"] for values in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("out", "calm")
    )
    assert len(ours) == STEPS
    assert ours == theirs
    ours, theirs = (outputs(tmp_path / name / "export") for name in ("out", "calm"))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name] and name.endswith((".bin", ".safetensors"))] == []


def test_evaluation(tmp_path: Path) -> None:
    places = Places(find_benchmark("demo"), tmp_path / "home")
    ov("benchmark", "prepare", "demo", "--home", places.home).finish()
    options = ("--jsonl", places.videos_jsonl, "--out_root", places.offline, "--num_workers", 0)
    ov("precompute", *options, *small()).finish()
    weights = tiny_checkpoint(tmp_path / "weights")

    def score(out: Path) -> Running:
        where = ("--home", places.home, "--out", out, "--device", "cpu")
        return ov("eval", "--checkpoint", weights, "--tasks", "demo", *where)

    score(tmp_path / "calm").finish()
    run = score(tmp_path / "out")
    run.wait_until(lambda: any(lines(path) for path in (tmp_path / "out").rglob("answers*.jsonl")))
    assert TOLD in run.interrupt()
    assert not (tmp_path / "out" / "demo" / current("codec")).exists()
    score(tmp_path / "out").finish()
    expect_tidy(tmp_path / "out")
    answers = []
    for name in ("out", "calm"):
        (path,) = (tmp_path / name / "demo" / current("codec")).glob("answers*.jsonl")
        answers.append(sorted(path.read_bytes().splitlines()))
    assert answers[0] == answers[1]


def test_preparing_a_benchmark(tmp_path: Path) -> None:
    entry = fixture("videomme", tmp_path / "clips")
    with hub() as local:
        local.add(entry)

        def prepare(home: Path) -> Running:
            return ov("benchmark", "prepare", "videomme", "--home", home, environment=local.environment(home))

        prepare(tmp_path / "calm").finish()
        local.hold("*.zip", after=1 << 10)
        home = tmp_path / "home"
        before = len(local.downloads("*.zip"))
        run = prepare(home)
        run.wait_until(lambda: len(local.downloads("*.zip")) > before)
        assert TOLD in run.interrupt()
        local.heal()
        prepare(home).finish()
    left = [path for path in home.rglob("*") if path.suffix in (".partial", ".tmp")]
    assert left == []
    ours, theirs = (_prepared(folder) for folder in (home, tmp_path / "calm"))
    assert ours == theirs


def _prepared(home: Path) -> dict[str, bytes]:
    passing = (".log", "cache", ".questions")
    found = {name: data for name, data in outputs(home).items() if not any(part in name for part in passing)}
    return {name: data.replace(os.fsencode(home), b"") for name, data in found.items()}
