"""Which sample comes when: complete, the same for any number of processes, resumable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ov_model.errors import UsageError
from ov_model.train.sampler import RankBatches, plan_epoch


def plan(count: int, batch: int, accumulation: int, world: int, epoch: int = 0, grouped: bool = True) -> np.ndarray:
    length_N = np.random.default_rng(count).integers(1, 10_000, count)
    return plan_epoch(
        np.arange(count),
        length_N,
        batch_size=batch,
        accumulation=accumulation,
        world=world,
        seed=3,
        epoch=epoch,
        group_by_length=grouped,
    )


@given(st.integers(16, 400), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_every_row_at_most_once_and_only_the_rest_dropped(
    count: int, batch: int, accumulation: int, world: int, grouped: bool
) -> None:
    rows = plan(count, batch, accumulation, world, grouped=grouped)
    assert rows.shape == (count // (batch * accumulation * world), accumulation, world, batch)
    assert len(np.unique(rows)) == rows.size


@given(st.integers(16, 400), st.integers(0, 5), st.booleans())
def test_a_step_has_the_same_samples_however_it_is_split(count: int, epoch: int, grouped: bool) -> None:
    one = plan(count, 1, 8, 1, epoch, grouped).reshape(-1, 8)
    for split in ((2, 2, 2), (8, 1, 1), (1, 1, 8), (4, 2, 1)):
        assert np.array_equal(np.sort(plan(count, *split, epoch, grouped).reshape(-1, 8)), np.sort(one))


def test_epochs_differ_and_repeat() -> None:
    assert not np.array_equal(plan(64, 2, 1, 2, 0), plan(64, 2, 1, 2, 1))
    assert np.array_equal(plan(64, 2, 1, 2, 1), plan(64, 2, 1, 2, 1))


def test_grouping_saves_padding_and_brings_the_longest_step_first() -> None:
    count, length_N = 4000, np.random.default_rng(4000).integers(1, 10_000, 4000)

    def padded(rows: np.ndarray) -> float:
        return float(length_N[rows].max(axis=-1).sum() * rows.shape[-1] / length_N[rows].sum())

    assert padded(plan(count, 4, 1, 4)) < 1.03
    assert padded(plan(count, 4, 1, 4, grouped=False)) > 1.5
    sums = length_N[plan(count, 4, 1, 4)].reshape(-1, 16).sum(axis=1)
    assert sums[0] == sums.max()
    assert abs(np.corrcoef(sums[1:-1], sums[2:])[0, 1]) < 0.2


def test_processes_work_on_samples_of_like_length() -> None:
    length_N = np.random.default_rng(4000).integers(1, 10_000, 4000)
    longest_SAW = length_N[plan(4000, 1, 4, 4)].max(axis=-1)
    assert longest_SAW.max(axis=-1).sum() / longest_SAW.mean(axis=-1).sum() < 1.1


def test_too_few_samples_for_a_step() -> None:
    with pytest.raises(UsageError, match=r"7 usable samples, but a step takes 8"):
        plan(7, 2, 2, 2)


def test_skipped_batches_are_the_first_of_the_same_epoch() -> None:
    accelerate = pytest.importorskip("accelerate")
    batches = RankBatches(
        np.arange(40),
        np.arange(40),
        batch_size=2,
        accumulation=1,
        rank=1,
        world=2,
        seed=0,
        group_by_length=True,
    )
    batches.set_epoch(3)
    whole = list(batches)
    loader = DataLoader(list(range(40)), batch_sampler=batches, collate_fn=list)  # type: ignore[arg-type]
    assert len(batches) == len(whole) == 10
    assert list(accelerate.skip_first_batches(loader, 4)) == whole[4:]
