"""Pixels -> the patches that are encoded and the position of each; where the shapes of all inputs are checked.

Shapes: B samples, T frames, H and W pixels, L tokens kept, V values of a patch (channels, then its rows and columns).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ov_model.encoder.configuration import OneVisionEncoderConfig
from ov_model.errors import OvError


class EncoderInputError(OvError, ValueError):
    """Pixels, indices or positions of a shape or range that the encoder cannot take."""


class EncoderInput(NamedTuple):
    """Patches [B,L,V] and positions (t,h,w) integer [B or 1,L,3] of the tokens to encode."""

    patches_BLV: torch.Tensor
    positions_BL3: torch.Tensor


def patchify(pixels_B3THW: torch.Tensor, patch: int) -> torch.Tensor:
    """[B,3,T,H,W] -> [B,T*rows*columns,V], in the order t, row, column."""
    batch, channels, frames, height, width = pixels_B3THW.shape
    grid = pixels_B3THW.reshape(batch, channels, frames, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * patch * patch)


def dense_positions(frames: int, rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """int64 [1,T*rows*columns,3], in the order t, row, column."""
    axes = (torch.arange(size, device=device) for size in (frames, rows, columns))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)


def dense_input(
    config: OneVisionEncoderConfig,
    pixel_values: torch.Tensor,
    token_indices_BL: torch.Tensor | None,
    patch_positions_BL3: torch.Tensor | None,
) -> EncoderInput:
    """Cut pixels in patches, keep the asked-for ones, and say where they are.

    Raises:
        EncoderInputError: names the argument, its shape, the shape expected.
    """
    patch, shape = config.patch_size, tuple(pixel_values.shape)
    pixels = pixel_values[:, :, None] if pixel_values.ndim == 4 else pixel_values
    if pixels.ndim != 5 or shape[1] != config.num_channels or 0 in shape or shape[-1] % patch or shape[-2] % patch:
        raise EncoderInputError(
            f"pixel_values have shape {shape}; they must be [B,{config.num_channels},H,W] or "
            f"[B,{config.num_channels},T,H,W] with sides of whole {patch} px patches"
        )
    frames, rows, columns = pixels.shape[2], shape[-2] // patch, shape[-1] // patch
    patches_BLV = patchify(pixels, patch)
    if token_indices_BL is not None:
        index = _checked_indices(token_indices_BL, shape[0], patches_BLV.shape[1])
        patches_BLV = patches_BLV.gather(1, index[..., None].expand(-1, -1, patches_BLV.shape[-1]))
    if patch_positions_BL3 is not None:
        return EncoderInput(patches_BLV, _checked_positions(patch_positions_BL3, *patches_BLV.shape[:2]))

    limit = config.rope_temporal_size
    if limit is not None and frames > limit:
        raise EncoderInputError(
            f"{frames} frames without patch_positions, but rope_temporal_size is {limit}; "
            f"pass patch_positions [B,L,3] or at most {limit} frames"
        )
    positions = dense_positions(frames, rows, columns, pixel_values.device)
    return EncoderInput(patches_BLV, positions if token_indices_BL is None else positions[0][token_indices_BL])


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _checked_indices(index_BL: torch.Tensor, batch: int, dense: int) -> torch.Tensor:
    shape = tuple(index_BL.shape)
    if len(shape) != 2 or shape[0] != batch or not shape[1] or not _is_whole(index_BL):
        raise EncoderInputError(f"token_indices are {index_BL.dtype} {shape}; they must be integers [{batch},L]")
    least, most = (int(bound) for bound in index_BL.aminmax())
    if least < 0 or most >= dense:
        raise EncoderInputError(
            f"token_indices reach from {least} to {most}; there are {dense} tokens, so they must be in 0..{dense - 1}"
        )
    return index_BL.long()


def _checked_positions(positions_BL3: torch.Tensor, batch: int, tokens: int) -> torch.Tensor:
    shape = tuple(positions_BL3.shape)
    if len(shape) != 3 or shape[0] not in (1, batch) or shape[1:] != (tokens, 3) or not _is_whole(positions_BL3):
        raise EncoderInputError(
            f"patch_positions are {positions_BL3.dtype} {shape}; "
            f"they must be integers [{batch} or 1,{tokens},3], one (t,h,w) for each token that is encoded"
        )
    return positions_BL3
