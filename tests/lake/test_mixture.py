"""Mixtures: the counts that were asked for, one draw for one seed, and paths that still lead to the files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ov_model.errors import UpstreamError, UsageError
from ov_model.lake.mixture import MixtureSource, MixtureSpec, draw, line_spans, mix, plan_counts


def write_dataset(root: Path, name: str, rows: int, *, relative: bool = False) -> Path:
    """A merged training JSONL of image rows, `rows` of them, in the folder of a dataset called `name`."""
    folder = root / name
    folder.mkdir(parents=True)
    base = Path() if relative else folder
    path = folder / "train.jsonl"
    with path.open("w") as file:
        for i in range(rows):
            row = {
                "id": f"{name}-{i}",
                "conversations": [{"from": "human", "value": f"<image>\nWas ist das, Ümläut {i}?"}],
                "image": [str(base / "images" / f"{i}.jpg")],
                "positions_thw": str(base / "images" / f"{i}.npy"),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def make_spec(root: Path, sources: dict[str, MixtureSource], **options) -> MixtureSpec:
    return MixtureSpec("mix", root / "mix" / "mixture.jsonl", tuple(sources.values()), **options)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


@pytest.fixture
def two(tmp_path: Path) -> dict[str, MixtureSource]:
    return {
        "a": MixtureSource("a", write_dataset(tmp_path, "a", 10)),
        "b": MixtureSource("b", write_dataset(tmp_path, "b", 7, relative=True)),
    }


def with_amount(source: MixtureSource, *, weight: float = 1.0, count: int | None = None) -> MixtureSource:
    return MixtureSource(source.name, source.jsonl, weight, count)


def test_weight_is_passes_through_a_source(tmp_path, two):
    sources = {"a": with_amount(two["a"], weight=0.5), "b": with_amount(two["b"], weight=2.0)}
    report = mix(make_spec(tmp_path, sources))
    taken = Counter(ids(report.out))
    assert report.counts == {"a": 5, "b": 14}
    assert sorted(taken[f"b-{i}"] for i in range(7)) == [2] * 7
    assert sorted(taken[f"a-{i}"] for i in range(10)) == [0] * 5 + [1] * 5


def test_size_is_shared_by_weight_after_counts(tmp_path, two):
    sources = {"a": with_amount(two["a"], count=3), "b": two["b"]}
    report = mix(make_spec(tmp_path, sources, size=12))
    assert report.counts == {"a": 3, "b": 9}
    assert len(ids(report.out)) == report.rows == 12


def test_same_seed_same_bytes_and_another_seed_another_order(tmp_path, two):
    first = mix(make_spec(tmp_path, two, seed=1)).out.read_bytes()
    other = mix(make_spec(tmp_path, two, seed=2)).out.read_bytes()
    again = mix(make_spec(tmp_path, two, seed=1)).out.read_bytes()
    assert first == again != other
    assert sorted(first.splitlines()) == sorted(other.splitlines())


def test_unshuffled_keeps_source_and_row_order(tmp_path, two):
    report = mix(make_spec(tmp_path, two, shuffle=False))
    assert ids(report.out) == [f"a-{i}" for i in range(10)] + [f"b-{i}" for i in range(7)]


@pytest.mark.parametrize("paths", ["absolute", "relative"])
def test_paths_lead_to_the_dataset_whose_row_it_is(tmp_path, two, paths):
    report = mix(make_spec(tmp_path, two, paths=paths))
    for line in report.out.read_text().splitlines():
        row = json.loads(line)
        name, number = row["id"].split("-")
        for path, suffix in ((row["image"][0], "jpg"), (row["positions_thw"], "npy")):
            assert Path(path).is_absolute() == (paths == "absolute")
            assert (report.out.parent / path).resolve() == tmp_path / name / "images" / f"{number}.{suffix}"


def test_second_run_does_nothing_and_a_changed_source_is_noticed(tmp_path, two):
    spec = make_spec(tmp_path, two)
    first = mix(spec)
    written = first.out.stat().st_mtime_ns
    second = mix(spec)
    assert (first.reused, second.reused) == (False, True)
    assert second.out.stat().st_mtime_ns == written
    assert second.data_version == first.data_version

    two["a"].jsonl.write_text("".join(two["a"].jsonl.read_text().splitlines(keepends=True)[:9]))
    third = mix(spec)
    assert not third.reused
    assert third.counts == {"a": 9, "b": 7}
    assert third.data_version != first.data_version


def test_a_truncated_output_is_written_again(tmp_path, two):
    first = mix(make_spec(tmp_path, two))
    whole = first.out.read_bytes()
    first.out.write_bytes(whole[:-5])
    assert not mix(make_spec(tmp_path, two)).reused
    assert first.out.read_bytes() == whole


def test_missing_source_is_refused_by_name(tmp_path, two):
    sources = {**two, "c": MixtureSource("c", tmp_path / "c" / "train.jsonl")}
    with pytest.raises(UpstreamError, match=r"c/train\.jsonl is missing; materialize c/train_jsonl first"):
        mix(make_spec(tmp_path, sources))


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ((), {}, "no source"),
        ((MixtureSource("a", Path("a")), MixtureSource("a", Path("a"))), {}, "a is named twice"),
        ((MixtureSource("a", Path("a"), weight=-1),), {}, "a is to give -1"),
        ((MixtureSource("a", Path("a"), count=5),), {"size": 4}, "add up to 5, above its size 4"),
    ],
)
def test_contradictions_are_refused(sources, options, message):
    with pytest.raises(UsageError, match=message):
        MixtureSpec("mix", Path("out.jsonl"), sources, **options)


def test_rows_of_an_empty_source_are_refused():
    spec = MixtureSpec("mix", Path("out"), (MixtureSource("a", Path("a"), count=2),))
    with pytest.raises(UsageError, match="2 rows are wanted of a, which has none"):
        plan_counts(spec, {"a": 0})


def test_line_spans_skips_blank_lines_and_a_missing_last_newline(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n\n{"b":2}')
    assert line_spans(path).tolist() == [[0, 8], [9, 16]]
    path.write_bytes(b"")
    assert line_spans(path).shape == (0, 2)


@given(
    available=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.01, 3), min_size=4, max_size=4),
    size=st.none() | st.integers(0, 120),
    seed=st.integers(0, 2**31),
)
def test_every_draw_takes_what_was_planned_and_spreads_it_evenly(available, weights, size, seed):
    rows = {f"d{i}": n for i, n in enumerate(available)}
    sources = tuple(MixtureSource(name, Path(name), weight) for name, weight in zip(rows, weights, strict=False))
    spec = MixtureSpec("mix", Path("out"), sources, seed=seed, size=size)
    counts = plan_counts(spec, rows)
    source_N, row_N = draw(spec, rows)
    if size is not None:
        assert sum(counts.values()) == size
    for i, (name, n) in enumerate(rows.items()):
        times = np.bincount(row_N[source_N == i], minlength=n)
        assert times.sum() == counts[name]
        assert times.max() - times.min() <= 1


@given(rows=st.integers(1, 60), more=st.integers(1, 20))
def test_rows_gained_later_leave_the_order_of_the_others(rows, more):
    spec = MixtureSpec("mix", Path("out"), (MixtureSource("a", Path("a")),), seed=3)
    _, before = draw(spec, {"a": rows})
    _, after = draw(spec, {"a": rows + more})
    assert [row for row in after.tolist() if row < rows] == before.tolist()
