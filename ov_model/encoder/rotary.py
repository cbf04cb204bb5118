"""Rotary embedding over time, row and column, exactly as the published weights were trained with it (REFERENCE 10).

It is odd, and must stay so. Take head_dim D and half = D/2 angles of one token, `freqs` = (t*inv_t, h*inv_h, w*inv_w),
the three axes holding 4, 6 and 6 sixteenths of them. Two conventions are common, and each is a rotation:

- halves: channel k is paired with k + D/2, and the angles are concat(freqs, freqs), so both members have angle k;
- neighbors: channel 2k is paired with 2k+1, and the angles are each repeated twice, so both members have angle k.

The published model pairs *neighbors* but lays out the angles as for *halves*:

    angle = concat(freqs, freqs)
    out[2k]   = x[2k]   * cos(angle[2k])   - x[2k+1] * sin(angle[2k])
    out[2k+1] = x[2k+1] * cos(angle[2k+1]) + x[2k]   * sin(angle[2k+1])

The two members of a pair are turned by different angles (2k and 2k+1 of the concatenation), so the map is no rotation:
it is not orthogonal, and a score q.k does not depend on the difference of the positions alone. The weights have learned
to live with it; "repairing" it breaks them.

Inverse frequencies are kept nowhere: no buffer that a cast could round to bfloat16 or that loading on the meta device
could leave empty. They are computed in float32 for each forward pass, from the configuration.

Shapes: B samples (or 1 for all), L tokens, D channels of a head.
"""

from __future__ import annotations

import torch

SIXTEENTHS = (4, 6, 6)


def axis_sizes(head_dim: int) -> tuple[int, int, int]:
    """How many frequencies t, h and w have; 8, 12, 12 for the published head_dim 64."""
    unit = head_dim // 32
    time, row, column = (share * unit for share in SIXTEENTHS)
    return time, row, column


def inverse_frequencies(size: int, theta: float, device: torch.device) -> torch.Tensor:
    """theta ** (-i / size), float32 [size]."""
    exponents = torch.arange(size, dtype=torch.float32, device=device) / size
    return 1.0 / torch.pow(torch.tensor(float(theta), dtype=torch.float32, device=device), exponents)


def rotation(positions_BL3: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every channel's angle, float32 [B,1,L,D] (1: the heads), from integer positions (t,h,w)."""
    with torch.autocast(positions_BL3.device.type, enabled=False):
        freqs = [
            positions_BL3[..., axis, None].to(torch.float32) * inverse_frequencies(size, theta, positions_BL3.device)
            for axis, size in enumerate(axis_sizes(head_dim))
        ]
        angle_BLD = torch.cat([*freqs, *freqs], dim=-1)[:, None]
        return angle_BLD.cos(), angle_BLD.sin()


def rotate(x_BHLD: torch.Tensor, cos_B1LD: torch.Tensor, sin_B1LD: torch.Tensor) -> torch.Tensor:
    """Turn neighboring channels, each by its own angle; computed in float32, returned in the dtype of x."""
    x = x_BHLD.to(torch.float32)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    swapped = torch.stack((-odd, even), dim=-1).flatten(-2)
    return torch.addcmul(x * cos_B1LD, swapped, sin_B1LD).to(x_BHLD.dtype)
