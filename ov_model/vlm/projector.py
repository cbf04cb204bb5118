"""The projector between encoder and language model, and its file `mm_projector.bin` (REFERENCE 11)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ov_model.errors import OvError, UsageError

PROJECTOR = "mm_projector."
PROJECTOR_FILE = "mm_projector.bin"


class ProjectorMismatch(OvError):
    """A projector file whose tensors are not those of the model."""


def make_projector(kind: str, encoder_size: int, lm_size: int) -> nn.Module:
    """ "linear", or "mlpNx_gelu": N linear layers with GELU between them.

    Raises:
        UsageError: another kind.
    """
    if kind == "linear":
        return nn.Linear(encoder_size, lm_size)
    match = re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)
    if match is None:
        raise UsageError(f"mm_projector_type is {kind!r}; use linear or mlpNx_gelu, such as mlp2x_gelu")
    layers: list[nn.Module] = [nn.Linear(encoder_size, lm_size)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), nn.Linear(lm_size, lm_size)]
    return nn.Sequential(*layers)


def projector_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The projector's part of a model's state, keys as they are (`model.mm_projector.*`), on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if f".{PROJECTOR}" in f".{name}"}


def save_projector(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write `mm_projector.bin` from a model's state (gathered, where it is partitioned over ranks)."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(projector_state(state), path)


def load_projector(model: nn.Module, path: str | Path) -> None:
    """Read `mm_projector.bin` into the model's projector; tensors only, no pickled code is run.

    Raises:
        ProjectorMismatch: tensors are missing, too many or of another shape.
    """
    found = {
        name.rpartition(PROJECTOR)[2]: tensor
        for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
    }
    projector = model.get_submodule(next(name for name, _ in model.named_modules() if name.endswith(PROJECTOR[:-1])))
    wanted = {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if shapes != wanted:
        raise ProjectorMismatch(f"{path} holds {shapes}; the model's projector is {wanted}")
    projector.load_state_dict(found)
