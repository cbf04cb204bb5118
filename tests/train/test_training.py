"""Training in one process: it learns, resumes exactly, trains what the stage says, exports what loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ov_model.errors import BadImage, UsageError
from ov_model.train.metrics import read_metrics
from ov_model.train.recipe import load_recipe
from ov_model.train.run import train
from ov_model.train.trainer import VlmTrainer
from ov_model.vlm.build import part_of
from tests.train.samples import ANSWERS, write_codec_data, write_mixed_data

ONE = ("run.zero=0", "optim.batch_size=2")
ANSWER = "-m", "ov_model.train.answer"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def losses(run: Path) -> list[float]:
    return [values["loss"] for values in read_metrics(run / "metrics.jsonl")]


def test_tiny_overfits_and_its_export_answers_in_a_fresh_process(tmp_path: Path) -> None:
    jsonl = write_codec_data(tmp_path / "data")
    export = train(load_recipe("tiny", ["run.zero=0"]), jsonl, tmp_path / "run")
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert metrics[-1]["loss"] < 0.1
    assert metrics[0]["loss"] > 4
    assert {"step", "loss", "lr", "tokens_per_second", "memory_bytes"} <= metrics[-1].keys()
    rows = [argument for row in range(8) for argument in ("--row", str(row))]
    command = [sys.executable, *ANSWER, str(export), str(jsonl), *rows]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [line.removeprefix("  answer:   ") for line in told.splitlines() if line.startswith("  answer:")]
    assert found == list(ANSWERS)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_stopping_and_resuming_equals_never_having_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 16)
    recipe = load_recipe("tiny", [*ONE, "optim.max_steps=19", "run.save_every=5", "run.keep=1"])
    whole = train(recipe, jsonl, tmp_path / "whole")

    def interrupted(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.state.global_step == 13:
            raise KeyboardInterrupt
        original(self, logs, start_time)

    original = VlmTrainer.log
    with monkeypatch.context() as patch:
        patch.setattr(VlmTrainer, "log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, jsonl, tmp_path / "parts")
    assert len(losses(tmp_path / "parts")) == 12
    assert [path.name for path in (tmp_path / "parts").glob("checkpoint-*")] == ["checkpoint-10"]
    parts = train(recipe, jsonl, tmp_path / "parts")

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    first, second = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    again = (tmp_path / "parts" / "metrics.jsonl").read_text().count("\n")
    assert train(recipe, jsonl, tmp_path / "parts") == parts
    assert (tmp_path / "parts" / "metrics.jsonl").read_text().count("\n") == again


def test_accumulation_is_the_same_arithmetic(tmp_path: Path) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 16)
    runs = {}
    for batch, accumulation in ((4, 1), (1, 4)):
        options = ["run.zero=0", f"optim.batch_size={batch}", f"optim.accumulation={accumulation}"]
        train(load_recipe("tiny", [*options, "optim.max_steps=6"]), jsonl, tmp_path / str(batch))
        runs[batch] = losses(tmp_path / str(batch))
    assert runs[1] == pytest.approx(runs[4], abs=1e-4)


def test_projector_stage_then_full_stage(tmp_path: Path) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 8)
    options = [*ONE, "optim.max_steps=3", "run.save_every=2"]
    first = load_recipe("tiny", [*options, "stage=projector", "data.template=plain"])
    projector = train(first, jsonl, tmp_path / "projector")
    assert not list(projector.glob("*.safetensors"))
    trained = torch.load(projector / "mm_projector.bin", weights_only=True)
    assert {part_of(name) for name in trained} == {"mm_mlp_adapter"}
    assert set(read_metrics(tmp_path / "projector" / "metrics.jsonl")[-1]) >= {"lr_projector"}
    assert "lr_language_model" not in read_metrics(tmp_path / "projector" / "metrics.jsonl")[-1]

    second = load_recipe("tiny", [*options, f"model.projector={tmp_path / 'projector'}", "optim.projector_lr=0"])
    export = train(second, jsonl, tmp_path / "full")
    state = load_file(export / "model.safetensors")
    assert all(torch.equal(state[name], trained[name]) for name in trained)
    assert "lr_projector" not in read_metrics(tmp_path / "full" / "metrics.jsonl")[-1]


def test_projector_stage_resumes_from_the_projector_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 8)
    recipe = load_recipe("tiny", [*ONE, "optim.max_steps=6", "run.save_every=3", "stage=projector"])
    train(recipe, jsonl, tmp_path / "whole")
    original = VlmTrainer.log

    def interrupted(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        original(self, logs, start_time)

    with monkeypatch.context() as patch:
        patch.setattr(VlmTrainer, "log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, jsonl, tmp_path / "parts")
    train(recipe, jsonl, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_sample_that_breaks_while_training_raises_or_is_counted(tmp_path: Path) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 8)
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    (jsonl.parent / rows[0]["image"][0]).write_bytes(b"no picture")
    options = [*ONE, "optim.epochs=1"]
    with pytest.raises(BadImage, match="codec-0"):
        train(load_recipe("tiny", options), jsonl, tmp_path / "raise")
    train(load_recipe("tiny", [*options, "data.on_bad_sample=skip"]), jsonl, tmp_path / "skip")
    assert read_metrics(tmp_path / "skip" / "metrics.jsonl")[-1]["skipped"] == 1
    skipped = [json.loads(line) for line in (tmp_path / "skip" / "skipped.jsonl").read_text().splitlines()]
    assert [(found["row"], found["reason"]) for found in skipped] == [(0, "bad_image")]


def test_activation_checkpointing_changes_nothing(tmp_path: Path) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 8)
    for name, setting in (("with", "true"), ("without", "false")):
        options = [*ONE, "optim.max_steps=3", f"run.gradient_checkpointing={setting}"]
        train(load_recipe("tiny", options), jsonl, tmp_path / name)
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), abs=1e-5)


def test_a_loader_process_loads_the_same(tmp_path: Path) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 8)
    for workers in (0, 1):
        options = [*ONE, "optim.max_steps=3", f"data.workers={workers}"]
        train(load_recipe("tiny", options), jsonl, tmp_path / str(workers))
    assert losses(tmp_path / "0") == losses(tmp_path / "1")


def test_what_a_machine_cannot_do_is_refused(tmp_path: Path) -> None:
    jsonl = write_mixed_data(tmp_path / "data", 4)
    with pytest.raises(UsageError, match="needs torchrun"):
        train(load_recipe("tiny"), jsonl, tmp_path / "zero")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="bf16 needs an accelerator"):
            train(load_recipe("tiny", [*ONE, "run.precision=bf16"]), jsonl, tmp_path / "bf16")
    with pytest.raises(UsageError, match="holds none"):
        train(load_recipe("tiny", [*ONE, "model.projector=/nowhere"]), jsonl, tmp_path / "projector")
    with pytest.raises(UsageError, match="vision_tower_type is 'siglip2'"):
        train(load_recipe("tiny", [*ONE, "model.vision_tower_type=siglip2"]), jsonl, tmp_path / "siglip2")
