"""Mutated videos of every codec and container through stage 1: each ends ok or with its reason, alone.

benchmarks/fuzz.py does the same with more of them and prints what became of each.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.fuzz import outcomes, run_stage1, write_mutants
from ov_model.errors import InternalError, reason_codes
from tests.faults.processes import expect_tidy
from tests.mutations import CLIPS, MUTATIONS, make_clips, mutate, spans

FILES, SECONDS = 60, 240


def test_mutants_end_ok_or_with_a_reason_in_bounded_time(tmp_path: Path) -> None:
    kinds = write_mutants(tmp_path, FILES, seed=3)
    start = time.monotonic()
    done = run_stage1(tmp_path)
    assert time.monotonic() - start < SECONDS
    assert done.returncode in (0, 3), done.stderr[-3000:]
    frame = outcomes(tmp_path)
    assert sorted(frame["id"]) == sorted(kinds)
    reasons = set(frame["outcome"]) - {"ok"}
    assert reasons <= set(reason_codes()) - {InternalError.reason}, frame.filter(outcome=InternalError.reason)["detail"]
    usable = frame.filter(outcome="ok").height / FILES
    assert 0.3 < usable < 0.95, "the mutations are too soft or too hard to tell anything"
    expect_tidy(tmp_path / "visidx")
    again = run_stage1(tmp_path)
    assert "0 media in" in again.stdout
    assert again.returncode == done.returncode


def test_every_clip_and_mutation_differs_and_repeats(tmp_path: Path) -> None:
    clips = make_clips(tmp_path)
    assert len(clips) == len(CLIPS)
    seen = set()
    for number, clip in enumerate(clips):
        data = clip.read_bytes()
        pieces = spans(data, clip.suffix)
        assert len(pieces) > 4, clip
        assert all(0 <= a < b <= len(data) for a, b in pieces), clip
        for seed in range(20 * number, 20 * number + 20):
            spoiled, kind = mutate(data, clip.suffix, seed)
            assert spoiled != data, (clip, kind)
            assert (spoiled, kind) == mutate(data, clip.suffix, seed)
            seen.add(kind)
    assert seen == set(MUTATIONS)
