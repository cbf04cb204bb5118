"""Two runs held against each other: answers must be the same, scores may differ by a known much."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ov_model.eval.compare import describe_reproduction, paired_difference, reproduction
from ov_model.eval.results import cluster_error, standard_error
from tests.eval.scores import samples


def test_equal_answers_are_a_reproduction() -> None:
    found = reproduction(samples([1, 0]), samples([1, 0]))
    assert found.equal
    assert found.compared == 2


def test_a_differing_answer_is_named() -> None:
    found = reproduction(samples([1, 0, 1], ["A", "B", "C"]), samples([1, 0, 1], ["A", "D", "C"]))
    assert found.differing == ("t/1",)
    assert describe_reproduction(found) == "1 of 3 greedy answers differ: t/1"


def test_a_document_that_one_run_lacks_differs() -> None:
    assert reproduction(samples([1, 1]), samples([1])).differing == ("t/1",)
    assert reproduction(samples([1]), samples([1, 1])).differing == ("t/1",)


def test_sampled_answers_are_not_compared() -> None:
    sampled = samples([1, 0], ["A", "B"]).with_columns(pl.lit(False).alias("greedy"))
    assert reproduction(sampled, sampled.with_columns(pl.lit("C").alias("answer"))).compared == 0


def test_the_difference_is_paired_by_document() -> None:
    found = paired_difference(samples([1, 1, 0, 1]), samples([0, 1, 0, 1]), "acc")
    assert found is not None
    assert (found.mean, found.documents, found.only_now, found.only_before) == (0.25, 4, 0, 0)
    error = np.sqrt(np.var([1, 0, 0, 0], ddof=1) / 4)
    assert found.low == pytest.approx(0.25 - 1.96 * error)
    assert found.high == pytest.approx(0.25 + 1.96 * error)


def test_documents_of_one_run_alone_are_counted_and_left_out() -> None:
    found = paired_difference(samples([1, 1, 1]), samples([0, None]), "acc")
    assert found is not None
    assert (found.documents, found.only_now, found.only_before) == (1, 2, 0)


def test_one_video_leaves_no_interval() -> None:
    found = paired_difference(samples([1, 0], clusters=["v", "v"]), samples([0, 0], clusters=["v", "v"]), "acc")
    assert found is not None
    assert math.isnan(found.low)
    assert "no interval" in str(found)


def test_nothing_in_common_is_no_difference() -> None:
    assert paired_difference(samples([1]), samples([1], metric="other"), "acc") is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_documents_of_videos_of_their_own_have_the_usual_standard_error(values: list[float]) -> None:
    array = np.array(values)
    error = cluster_error(array, pl.Series(range(len(values))))
    assert error == pytest.approx(array.std(ddof=1) / np.sqrt(len(array)), abs=1e-12)


def test_questions_about_one_video_are_not_independent() -> None:
    apart = standard_error(samples([1, 1, 0, 0]), 100)
    together = standard_error(samples([1, 1, 0, 0], clusters=["a", "a", "b", "b"]), 100)
    assert apart is not None
    assert together is not None
    assert together > apart


def test_a_metric_that_means_nothing_for_one_document_has_no_standard_error() -> None:
    assert standard_error(samples([1, None]), 100) is None
