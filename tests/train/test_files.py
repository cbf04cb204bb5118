"""Files of a run: metrics, checkpoints, identity, model card."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_model.errors import LockedError, TrainingFailed, UsageError
from ov_model.lake.files import hash_file, write_json
from ov_model.lake.lock import ShardLock
from ov_model.train.checkpoints import checkpoints, drop_old, last_checkpoint, mark_complete
from ov_model.train.export import Provenance, model_card
from ov_model.train.identity import identify
from ov_model.train.launch import Nodes, launch
from ov_model.train.metrics import MetricsFile, read_metrics
from ov_model.train.recipe import load_recipe
from tests.train.samples import text_row, write_jsonl


def test_metrics_of_a_resumed_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    for step in (1, 2, 3):
        first.append({"step": step, "loss": step})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    second = MetricsFile(path)
    for step in (3, 4):
        second.append({"step": step, "loss": 10 * step})
    second.close()
    assert [(m["step"], m["loss"]) for m in read_metrics(path)] == [(1, 1), (2, 2), (3, 30), (4, 40)]


def checkpoint(run: Path, step: int, complete: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x")
    if complete:
        mark_complete(folder, {"step": step, "world": 2, "zero": 3})
    return folder


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    for step, complete in ((5, True), (10, True), (20, False)):
        checkpoint(tmp_path, step, complete)
    assert last_checkpoint(tmp_path, world=2, zero=3) == tmp_path / "checkpoint-10"
    assert last_checkpoint(tmp_path / "none", world=2, zero=3) is None


def test_old_checkpoints_go_and_torn_ones_with_them(tmp_path: Path) -> None:
    for step, complete in ((5, True), (7, False), (10, True), (100, True), (120, False)):
        checkpoint(tmp_path, step, complete)
    drop_old(tmp_path, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-100"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-120"]


def test_shards_of_another_world_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    with pytest.raises(UsageError, match=r"2 processes with ZeRO 3, not 4 with ZeRO 3"):
        last_checkpoint(tmp_path, world=4, zero=3)


def test_a_folder_is_one_run(tmp_path: Path) -> None:
    recipe, jsonl = load_recipe("tiny"), tmp_path / "a.jsonl"
    identify(recipe, jsonl, "abc", tmp_path, 2)
    identify(load_recipe("tiny", ["run.keep=1"]), jsonl, "abc", tmp_path, 2)
    with pytest.raises(UsageError, match=r"optim.learning_rate was 0.003, is 1.0"):
        identify(load_recipe("tiny", ["optim.learning_rate=1"]), jsonl, "abc", tmp_path, 2)
    with pytest.raises(UsageError, match="data_hash was abc, is abd"):
        identify(recipe, jsonl, "abd", tmp_path, 2)
    with pytest.raises(UsageError, match="samples_a_step was 8, is 4"):
        identify(recipe, jsonl, "abc", tmp_path, 1)


def test_model_card_tells_how_to_make_it_again(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "mix.jsonl", [text_row(0)])
    digest = hash_file(jsonl)
    manifest = {"data_version": digest, "inputs": {"demo": "1234"}, "counts": {"demo": 7}}
    write_json(tmp_path / "mix.jsonl.manifest.json", manifest)
    origin = Provenance.of(jsonl, digest, 1)
    recipe = load_recipe("tiny")
    card = model_card(recipe, origin, [{"step": 9, "loss": 0.5}], {"model.safetensors": (3, "f00d")})
    for part in (
        digest,
        "demo: 7 rows of SHA-256 `1234`",
        recipe.config_hash,
        "f00d",
        "learning_rate: 0.003",
        "torch ",
    ):
        assert part in card
    stale = Provenance.of(jsonl, "another", 1)
    assert stale.manifest is None


def test_launching_twice_into_one_folder_is_refused(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl", [text_row(0)])
    with ShardLock(tmp_path / "run" / "train.lock"), pytest.raises(LockedError):
        launch(load_recipe("tiny"), jsonl, tmp_path / "run")


def test_beginning_anew_keeps_only_what_is_cached(tmp_path: Path) -> None:
    jsonl, run = write_jsonl(tmp_path / "a.jsonl", [text_row(0)]), tmp_path / "run"
    checkpoint(run, 5)
    write_json(run / "export" / "config.json", {})
    MetricsFile(run / "metrics.jsonl").append({"step": 1})
    identify(load_recipe("sft"), jsonl, "another", run, 1)
    with pytest.raises(UsageError, match="holds another run"):
        launch(load_recipe("tiny", ["run.zero=0"]), jsonl, run)
    with pytest.raises(TrainingFailed, match="1 usable samples, but a step takes 4"):
        launch(load_recipe("tiny", ["run.zero=0"]), jsonl, run, fresh=True)
    left = {path.name for path in run.iterdir()}
    assert not left & {"checkpoint-5", "export"}
    assert "cache" in left


def test_a_failed_rank_fails_the_run_with_its_traceback(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl", [text_row(0), {"id": "wrong", "conversations": "none"}])
    with pytest.raises(TrainingFailed, match=r"rank 0 failed: BadRecord: .*wrong(.|\n)*Traceback"):
        launch(load_recipe("tiny", ["run.zero=0"]), jsonl, tmp_path / "run")
    assert not (tmp_path / "run" / "train.lock").exists()


@pytest.mark.parametrize("values", [{"processes": 0}, {"nodes": 2}, {"nodes": 2, "rank": 2, "address": "a:1"}])
def test_nodes_that_make_no_sense(values: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Nodes(**values)  # type: ignore[arg-type]
