"""DeepSpeed: its configuration from a recipe, and what it needs to run on a CPU."""

from __future__ import annotations

import os
from typing import Any

from ov_model.train.recipe import Recipe


def deepspeed_config(recipe: Recipe, *, world: int, hidden_size: int, bf16: bool, cpu: bool) -> dict[str, Any]:
    """ZeRO-2 or ZeRO-3 as the recipe says; clipping on, no optimizer in it (the trainer's has a rate for each part).

    Args:
        hidden_size: of the language model; bucket sizes follow from it, as in transformers.
    """
    optim = recipe.optim
    zero: dict[str, Any] = {
        "stage": recipe.run.zero,
        "overlap_comm": not cpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": max(hidden_size * hidden_size, 500_000),
    }
    if recipe.run.zero == 3:
        zero |= {
            "sub_group_size": 1_000_000_000,
            "stage3_prefetch_bucket_size": int(0.9 * hidden_size * hidden_size),
            "stage3_param_persistence_threshold": 10 * hidden_size,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return {
        "train_micro_batch_size_per_gpu": optim.batch_size,
        "gradient_accumulation_steps": optim.accumulation,
        "train_batch_size": optim.batch_size * optim.accumulation * world,
        "gradient_clipping": optim.max_grad_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }


def prepare_cpu() -> None:
    """Let DeepSpeed run over gloo, without its shared-memory operator, whose compilation takes minutes.

    Call before anything imports deepspeed.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
