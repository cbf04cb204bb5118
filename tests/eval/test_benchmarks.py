"""The registry says what lmms-eval's own task files say; keys name each video once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ov_model import cli
from ov_model.errors import UsageError
from ov_model.eval.benchmarks import BENCHMARKS, Benchmark, Places, find_benchmark, the_eight
from ov_model.eval.keys import shared_stems, video_key, video_keys
from ov_model.eval.tasks import task_folder

FROM_HUB = [benchmark for benchmark in BENCHMARKS.values() if benchmark.repo]


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def read(benchmark: Benchmark) -> list[dict]:
    """lmms-eval's files of a benchmark's tasks, their templates filled in."""
    folder = task_folder(benchmark)
    everything = [yaml.load(path.read_text(), _Loader) for path in folder.glob("*.yaml")]
    named = {entry["task"] if isinstance(entry["task"], str) else entry["group"]: entry for entry in everything}
    found = named[benchmark.task]
    leaves = [found] if isinstance(found["task"], str) else [named[name] for name in found["task"]]
    return [
        {**yaml.load((folder / leaf["include"]).read_text(), _Loader), **leaf} if "include" in leaf else leaf
        for leaf in leaves
    ]


@pytest.mark.parametrize("benchmark", FROM_HUB, ids=lambda benchmark: benchmark.name)
def test_the_registry_agrees_with_lmms_eval(benchmark: Benchmark) -> None:
    for task in read(benchmark):
        assert task["dataset_path"] == benchmark.repo
        assert task["dataset_kwargs"]["cache_dir"] == benchmark.cache_dir
        assert task["dataset_kwargs"].get("revision", "main") == benchmark.revision
        assert task.get("test_split", task.get("validation_split")) == benchmark.split
        assert benchmark.metric in [metric["metric"] for metric in task["metric_list"]]


def test_the_eight_are_those_of_the_reference() -> None:
    assert {benchmark.name: benchmark.task for benchmark in the_eight()} == {
        "videomme": "videomme",
        "mvbench": "mvbench",
        "perceptiontest": "perceptiontest_val_mc",
        "nextqa": "nextqa_mc_test",
        "temporalbench": "temporalbench_long_qa",
        "video_mmmu": "video_mmmu",
        "tomato": "tomato",
        "longvideobench": "longvideobench_val_v",
    }


def test_both_names_find_a_benchmark() -> None:
    assert find_benchmark("perceptiontest") is find_benchmark("perceptiontest_val_mc")
    with pytest.raises(UsageError, match="no benchmark 'nope'; there are: videomme, mvbench"):
        find_benchmark("nope")


def test_no_two_benchmarks_share_a_place() -> None:
    places = [Places(benchmark, Path("/h")) for benchmark in BENCHMARKS.values()]
    folders = [place.videos for place in places] + [place.offline for place in places]
    assert len(set(folders)) == len(folders)


def test_a_key_is_the_stem_where_it_is_unique_and_the_path_where_not() -> None:
    paths = ["/v/a/x.mp4", "/v/b/x.mp4", "/v/b/y.mp4"]
    assert video_keys(paths, Path("/v")) == {paths[0]: "a__x", paths[1]: "b__x", paths[2]: "y"}
    assert video_key("/v/b/y.mp4", Path("/v"), shared_stems(paths)) == "y"


def test_a_folder_of_frames_keeps_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "clip.v2").mkdir()
    assert video_keys([str(tmp_path / "clip.v2")], tmp_path) == {str(tmp_path / "clip.v2"): "clip.v2"}


@given(st.lists(st.lists(st.sampled_from(["a", "A", "b", "a__b", "_"]), min_size=1, max_size=3), max_size=12))
def test_no_two_videos_have_one_key(parts: list[list[str]]) -> None:
    paths = ["/v/" + "/".join(names) + suffix for names in parts for suffix in (".mp4", ".mkv")]
    keys = video_keys(paths, Path("/v"))
    assert set(keys) == set(paths)
    assert len({key.casefold() for key in keys.values()}) == len(keys)
    assert not any("/" in key for key in keys.values())


def test_list_shows_every_benchmark_and_what_lies_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", "list", "--home", str(tmp_path), "--json"])
    assert not stop.value.code
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(BENCHMARKS)
    assert {row["local"]["state"] for row in rows if row["repo"]} == {"absent"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the benchmarks to prepare"),
        (["nope"], "no benchmark 'nope'"),
        (["all", "--revision", "x"], "--revision is of one data set"),
    ],
)
def test_prepare_refuses_what_cannot_be_meant(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", "prepare", *arguments, "--home", str(tmp_path)])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
