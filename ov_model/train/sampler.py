"""Which samples every process sees at every step: decided by seed, epoch and lengths, not by the number of processes.

A step's samples are chosen first and then dealt to accumulation steps and processes, so that the same step on more
processes, or with more accumulation, is the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ov_model.errors import UsageError

MEGABATCH = 50


def plan_epoch(
    row_N: NDArray[np.int64],
    length_N: NDArray[np.int64],
    *,
    batch_size: int,
    accumulation: int,
    world: int,
    seed: int,
    epoch: int,
    group_by_length: bool,
) -> NDArray[np.int64]:
    """Rows of an epoch, int64 [steps, accumulation, world, batch_size]; the rest of the division is dropped.

    Grouped by length: shuffled rows are sorted by length within blocks of `MEGABATCH` steps, steps come in random order
    but for the longest, which is first (trouble with memory shows at once), and within a step the processes that work
    at the same time get samples of like length.

    Raises:
        UsageError: fewer rows than one step takes.
    """
    step_size = batch_size * accumulation * world
    steps = len(row_N) // step_size
    if not steps:
        raise UsageError(
            f"{len(row_N)} usable samples, but a step takes {step_size} (batch_size {batch_size} x accumulation "
            f"{accumulation} x {world} processes); lower optim.batch_size or optim.accumulation"
        )
    order_N = np.argsort(_keys(seed, epoch, 0, len(row_N)), kind="stable")[: steps * step_size]
    if group_by_length:
        block = MEGABATCH * step_size
        order_N = np.concatenate(
            [
                part[np.argsort(-length_N[part], kind="stable")]
                for part in np.split(order_N, range(block, len(order_N), block))
            ]
        )
        order_SB = order_N.reshape(steps, step_size)
        shuffled_S = np.argsort(_keys(seed, epoch, 1, steps), kind="stable")
        longest = int(np.argmax(length_N[order_SB].sum(axis=1)))
        shuffled_S = np.concatenate([[longest], shuffled_S[shuffled_S != longest]])
        order_N = order_SB[shuffled_S].reshape(-1)
    return row_N[order_N].reshape(steps, accumulation, world, batch_size)


def _keys(seed: int, epoch: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Random keys that are the same in every version of NumPy: the bit generator's own output."""
    entropy = np.random.SeedSequence([seed, epoch, stream])
    return np.random.Philox(entropy).random_raw(count)


class RankBatches(Sampler[list[int]]):
    """The batches of one process, an epoch at a time: the batch sampler of its DataLoader."""

    def __init__(
        self,
        row_N: NDArray[np.int64],
        length_N: NDArray[np.int64],
        *,
        batch_size: int,
        accumulation: int,
        rank: int,
        world: int,
        seed: int,
        group_by_length: bool,
    ) -> None:
        self.row_N, self.length_N = row_N, length_N
        self.rank, self.epoch = rank, 0
        self.batch_size = batch_size
        self.options = {
            "batch_size": batch_size,
            "accumulation": accumulation,
            "world": world,
            "seed": seed,
            "group_by_length": group_by_length,
        }
        self.plan()

    def plan(self) -> NDArray[np.int64]:
        """This process's rows of the current epoch, int64 [steps * accumulation, batch_size]."""
        plan_SAWB = plan_epoch(self.row_N, self.length_N, epoch=self.epoch, **self.options)
        return plan_SAWB[:, :, self.rank].reshape(-1, self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        step_size = self.batch_size * self.options["accumulation"] * self.options["world"]
        return len(self.row_N) // step_size * self.options["accumulation"]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.plan().tolist())
