"""transformers' Trainer with our sampling, a learning rate for each part, metrics to a file, marked checkpoints.

The loss of a step is the mean over all supervised tokens of the step, on however many processes it is computed.
"""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from ov_model.train.checkpoints import drop_old, last_checkpoint, mark_complete
from ov_model.train.data import JsonlDataset, collate
from ov_model.train.lengths import Lengths
from ov_model.train.metrics import METRICS, MetricsFile, read_metrics
from ov_model.train.processes import die_with_parent
from ov_model.train.recipe import Recipe
from ov_model.train.sampler import RankBatches
from ov_model.vlm.build import part_of
from ov_model.vlm.projector import PROJECTOR_FILE, load_projector, save_projector

SKIPPED = "skipped.jsonl"
log = logging.getLogger(__name__)
_PARTS = {"mm_vision_tower": "vision_tower", "mm_mlp_adapter": "projector", "mm_language_model": "language_model"}


class EpochLoader(DataLoader[Any]):
    """A DataLoader that tells its batch sampler which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def training_arguments(
    recipe: Recipe, out: Path, *, device: torch.device, bf16: bool, deepspeed: dict[str, Any] | None
) -> TrainingArguments:
    """What transformers' Trainer is to do; `deepspeed` from `deepspeed_config`, or None."""
    optim, run = recipe.optim, recipe.run
    backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else None
    state: dict[str, Any] = {"use_cpu": device.type == "cpu", "bf16": bf16, "ddp_backend": backend}
    if deepspeed is not None:
        state = {"deepspeed": deepspeed, "accelerator_config": {"use_configured_state": True}, "bf16": bf16}
    checkpointing: dict[str, Any] = {}
    if run.gradient_checkpointing:
        known = {found.name for found in fields(TrainingArguments)}
        name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
        checkpointing = {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulation,
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps or -1,
        learning_rate=optim.learning_rate,
        lr_scheduler_type=optim.schedule,
        warmup_steps=optim.warmup_ratio,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.betas[0],
        adam_beta2=optim.betas[1],
        max_grad_norm=optim.max_grad_norm,
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=run.save_every,
        seed=recipe.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        **state,
        **checkpointing,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class VlmTrainer(Trainer):
    """Trains one recipe into one folder.

    Args:
        lengths: of every row of the dataset.
        rank, world: this process among all.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        model: Any,
        args: TrainingArguments,
        dataset: JsonlDataset,
        lengths: Lengths,
        rank: int,
        world: int,
    ) -> None:
        self.recipe, self.out = recipe, out
        self.lengths, self.rank, self.world = lengths, rank, world
        self.tokens = self.skipped = 0
        self.since = time.perf_counter()
        self.metrics_file: MetricsFile | None = None
        self.rates_now: dict[str, float] = {}
        super().__init__(model=model, args=args, train_dataset=dataset)
        self.model_accepts_loss_kwargs = True
        self.remove_callback(PrinterCallback)
        if rank == 0:
            from torch.utils.tensorboard.writer import SummaryWriter
            from transformers.integrations.integration_utils import TensorBoardCallback

            self.metrics_file = MetricsFile(out / METRICS)
            self.add_callback(TensorBoardCallback(SummaryWriter(str(out / "tensorboard"))))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process, decoded by `data.workers` processes."""
        dataset: Any = self.train_dataset
        data, optim = self.recipe.data, self.recipe.optim
        rows_N = self.lengths.usable_rows()
        batches = RankBatches(
            rows_N,
            self.lengths.length_N[rows_N],
            batch_size=optim.batch_size,
            accumulation=optim.accumulation,
            rank=self.rank,
            world=self.world,
            seed=self.recipe.seed,
            group_by_length=data.group_by_length,
        )
        workers: dict[str, Any] = {}
        if data.workers:
            workers = {
                "num_workers": data.workers,
                "multiprocessing_context": "spawn",
                "persistent_workers": True,
                "prefetch_factor": 4,
                "worker_init_fn": _start_worker,
            }
        return EpochLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(collate, pad_token_id=dataset.tokenizer.pad_token_id),
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator().manual_seed(self.recipe.seed),
            **workers,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a group for each part that is trained; weight decay on matrices only."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))  # type: ignore[arg-type]
            groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():  # type: ignore[union-attr]
                if parameter.requires_grad:
                    groups.setdefault((_PARTS[part_of(name)], name in decayed), []).append(parameter)
            optim = self.recipe.optim
            self.optimizer = torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "lr": self.recipe.rates[part],
                        "weight_decay": optim.weight_decay if decays else 0.0,
                        "part": part,
                    }
                    for (part, decays), parameters in groups.items()
                ],
                betas=optim.betas,
            )
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """The batches of one step, and the supervised tokens of all processes in it."""
        batches = list(islice(epoch_iterator, num_batches))
        self.rates_now = self.part_rates()
        skipped = [sample for batch in batches for sample in batch.pop("skipped")]
        if skipped:
            with (self.out / SKIPPED).open("a") as file:
                for sample in skipped:
                    file.write(json.dumps(vars(sample) | {"step": self.state.global_step + 1}) + "\n")
        supervised = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        tokens = sum(int(batch.pop("lengths").sum()) for batch in batches)
        counts = torch.tensor([[supervised, tokens, len(skipped)]], device=device)
        if self.world > 1:
            counts = self.accelerator.gather(counts)
        supervised_all, tokens_all, skipped_all = counts.sum(dim=0)  # type: ignore[union-attr]
        self.tokens += int(tokens_all)
        self.skipped += int(skipped_all)
        return batches, supervised_all.clamp(min=1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add speed, memory and the rate of each part, and write a line of metrics.jsonl."""
        if "loss" in logs:
            now = time.perf_counter()
            logs["tokens_per_second"] = self.tokens / max(now - self.since, 1e-9)
            logs["tokens"] = self.tokens
            logs["skipped"] = self.skipped
            logs["memory_bytes"] = peak_memory(self.args.device)
            logs |= {f"lr_{part}": rate for part, rate in self.rates_now.items()}
            self.tokens, self.since = 0, now
            if self.metrics_file is not None:
                values = {"step": self.state.global_step, "epoch": self.state.epoch, "time": time.time(), **logs}
                values["lr"] = values.pop("learning_rate")
                self.metrics_file.append(values | {"max_steps": self.state.max_steps})
                log.info(
                    "step %d of %d: loss %.4f, %.0f tokens/s, %.2f GB",
                    *(self.state.global_step, self.state.max_steps, logs["loss"]),
                    *(logs["tokens_per_second"], logs["memory_bytes"] / 1e9),
                )
        super().log(logs, start_time)

    def part_rates(self) -> dict[str, float]:
        """Learning rate of each trained part for the next step."""
        groups = self.optimizer.param_groups  # type: ignore[union-attr]
        return {group["part"]: float(group["lr"]) for group in groups if "part" in group}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.rank == 0:
            folder = self.out / f"checkpoint-{self.state.global_step}"
            facts = {"step": self.state.global_step, "world": self.world, "zero": self.zero}
            mark_complete(folder, facts | {"config_hash": self.recipe.config_hash})
            drop_old(self.out, self.recipe.run.keep)
        self.accelerator.wait_for_everyone()

    @property
    def zero(self) -> int:
        """ZeRO stage in use, 0 for none."""
        return self.recipe.run.zero if self.is_deepspeed_enabled else 0

    def resume_point(self) -> str | None:
        """Folder of the checkpoint to go on from; samples skipped before it stay counted."""
        found = last_checkpoint(self.out, world=self.world, zero=self.zero)
        if found is None:
            return None
        step = int(found.name.rpartition("-")[2])
        before = [values["skipped"] for values in read_metrics(self.out / METRICS) if values["step"] <= step]
        self.skipped = before[-1] if before else 0
        return str(found)

    @property
    def bare_model(self) -> Any:
        """The model without what wraps it for training."""
        return self.accelerator.unwrap_model(self.model)  # type: ignore[arg-type]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Weights and configuration; in the projector stage, the projector alone."""
        if not self.args.should_save:
            return
        folder, model = Path(output_dir or self.out), self.bare_model
        state = model.state_dict() if state_dict is None else state_dict
        save_projector(state, folder / PROJECTOR_FILE)
        if self.recipe.stage == "projector":
            model.config.save_pretrained(folder)
        else:
            model.save_pretrained(folder, state_dict=state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.recipe.stage == "projector":
            load_projector(self.bare_model, Path(resume_from_checkpoint) / PROJECTOR_FILE)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process held at once: on the accelerator, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _start_worker(_: int) -> None:
    die_with_parent()
    torch.set_num_threads(1)
