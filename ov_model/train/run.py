"""One process of a training run.

    torchrun --nproc_per_node 8 -m ov_model.train.run RECIPE.yaml --data mixture.jsonl --out RUN

`ov train` starts this and guards it. Alone, without torchrun, it trains in this process (`run.zero=0`).

RUN/ holds run.json (what is trained), metrics.jsonl, tensorboard/, checkpoint-N/, cache/, and at the end export/.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ov_model.errors import LockedError, UsageError
from ov_model.lake.files import write_json
from ov_model.train.data import JsonlDataset
from ov_model.train.export import EXPORT, Provenance, finish_export
from ov_model.train.identity import RUN, identify
from ov_model.train.index import JsonlRows
from ov_model.train.launch import ERRORS
from ov_model.train.lengths import Lengths, measure_lengths
from ov_model.train.metrics import METRICS, read_metrics
from ov_model.train.processes import die_with_parent
from ov_model.train.recipe import Recipe, load_recipe
from ov_model.train.zero import deepspeed_config, prepare_cpu

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """This process among those of the run."""

    rank: int
    world: int
    local_rank: int
    launched: bool

    @classmethod
    def from_environment(cls) -> Place:
        """As torchrun says; alone where it was not used."""
        values = [
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        ]
        return cls(*values, launched="LOCAL_RANK" in os.environ)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def prepare(recipe: Recipe, jsonl: Path, out: Path) -> tuple[Any, JsonlDataset, Lengths]:
    """Tokenizer, dataset and lengths; what takes time is kept in `out/cache`, so that a second call is quick.

    Raises:
        SampleError: a row that cannot be used, where the recipe does not say to skip.
    """
    from transformers import AutoTokenizer

    from ov_model.train.build import make_tokenizer

    cache = out / "cache"
    rows = JsonlRows(jsonl, cache)
    if recipe.model.tokenizer == "train":
        folder = cache / f"tokenizer-{recipe.model.tokenizer_vocab}-{rows.content_hash[:16]}"
        if not folder.is_dir():
            temporary = cache / f".{folder.name}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            make_tokenizer(recipe.model, rows).save_pretrained(temporary)
            temporary.rename(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:
        tokenizer = make_tokenizer(recipe.model, rows)
    dataset = JsonlDataset(jsonl, recipe.data, tokenizer, cache=cache)
    return tokenizer, dataset, measure_lengths(dataset, cache=cache, workers=recipe.data.workers)


def train(recipe: Recipe, jsonl: Path, out: Path) -> Path:
    """Train, from the last checkpoint where there is one, and export; the export's folder.

    Raises:
        UsageError: the folder holds another run, or ZeRO was asked for outside torchrun.
        SampleError: a sample that cannot be used, where the recipe does not say to skip.
    """
    place = Place.from_environment()
    zero = recipe.run.zero
    if zero and not place.launched:
        raise UsageError(f"ZeRO {zero} needs torchrun; start with `ov train`, or set run.zero=0")
    out.mkdir(parents=True, exist_ok=True)
    with _only_trainer(out) if place.rank == 0 else nullcontext():
        return _train(recipe, jsonl, out, place)


def _train(recipe: Recipe, jsonl: Path, out: Path, place: Place) -> Path:
    zero, cpu = recipe.run.zero, place.device.type == "cpu"
    bf16 = recipe.run.precision == "bf16" or (
        recipe.run.precision == "auto" and not cpu and torch.cuda.is_bf16_supported()
    )
    if bf16 and cpu:
        raise UsageError(f"recipe {recipe.name}: run.precision bf16 needs an accelerator; use auto or float32")
    _join(place, zero)
    if place.rank == 0:
        prepare(recipe, jsonl, out)
    _wait(place)
    tokenizer, dataset, lengths = prepare(recipe, jsonl, out)
    if place.rank == 0:
        identify(recipe, jsonl, dataset.rows.content_hash, out, place.world)
    if (out / EXPORT).is_dir() and (out / RUN).is_file():
        log.info("%s is there already; nothing to train", out / EXPORT)
        return out / EXPORT

    from ov_model.train.build import make_model
    from ov_model.train.trainer import VlmTrainer, training_arguments

    model = make_model(recipe, tokenizer, dtype=torch.bfloat16 if bf16 and zero else torch.float32, device=place.device)
    config = None
    if zero:
        hidden = model.config.hidden_size
        config = deepspeed_config(recipe, world=place.world, hidden_size=hidden, bf16=bf16, cpu=cpu)
    trainer = VlmTrainer(
        recipe,
        out,
        model=model,
        args=training_arguments(recipe, out, device=place.device, bf16=bf16, deepspeed=config),
        dataset=dataset,
        lengths=lengths,
        rank=place.rank,
        world=place.world,
    )
    trainer.train(resume_from_checkpoint=trainer.resume_point())
    temporary = out / f".{EXPORT}.tmp"
    if place.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.save_model(str(temporary))
    _wait(place)
    if place.rank == 0:
        origin = Provenance.of(jsonl, dataset.rows.content_hash, len(dataset))
        metrics = read_metrics(out / METRICS)
        finish_export(temporary, out / EXPORT, recipe, tokenizer, origin, metrics)
    _wait(place)
    return out / EXPORT


def _join(place: Place, zero: int) -> None:
    """Join the other processes, in the one order that DeepSpeed, accelerate and transformers agree on."""
    cpu = place.device.type == "cpu"
    if not cpu:
        torch.cuda.set_device(place.device)
    if not place.launched:
        return
    if zero:
        if cpu:
            prepare_cpu()
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        from accelerate import PartialState

        PartialState(backend="gloo") if cpu else PartialState()
    elif place.world > 1:
        torch.distributed.init_process_group("gloo" if cpu else "nccl")


def _wait(place: Place) -> None:
    if place.world > 1:
        torch.distributed.barrier()


@contextmanager
def _only_trainer(out: Path, patience: float = 60.0) -> Iterator[None]:
    """Held by rank 0 for life and let go by the kernel: no two trainers on one folder, whoever started them.

    Raises:
        LockedError: another one is alive after `patience` seconds.
    """
    with open(out / "trainer.lock", "a") as file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise LockedError(
                        f"{out}: another trainer is at work in this folder; wait for it, or stop it"
                    ) from None
                time.sleep(0.2)
        yield


def quiet() -> None:
    """Our own log alone: no progress bars, no warnings of what libraries will rename."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("ov_model").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def main() -> None:
    parser = argparse.ArgumentParser(description="One process of a training run.")
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--agent", type=int, help="process id that this one must not outlive")
    options = parser.parse_args()
    if options.agent is not None:
        die_with_parent(options.agent)
    quiet()
    rank = Place.from_environment().rank
    try:
        train(load_recipe(options.recipe), options.data, options.out)
    except BaseException as error:
        values = {"rank": rank, "time": time.time(), "error": type(error).__name__, "message": str(error)}
        write_json(options.out / ERRORS / f"rank{rank}.json", values | {"traceback": traceback.format_exc()})
        if options.agent is None:
            traceback.print_exc()
        os._exit(1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
