"""Components from YAML: what a folder with a `defs.yaml` gives, and what a bad one is told."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from ov_assets.components import VideoDataset
from tests.assets.lanes import TINY


def load(folders: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dg.Definitions:
    """Definitions of a project whose `defs` has these folders: name -> (component, attributes)."""
    with create_defs_folder_sandbox() as sandbox, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (component, attributes) in folders.items():
            folder = sandbox.defs_folder_path / name
            folder.mkdir(parents=True)
            content = {"type": f"ov_assets.components.{component}", "attributes": dict(attributes)}
            (folder / "defs.yaml").write_text(yaml.safe_dump(content))
        with sandbox.build_all_defs() as definitions:
            definitions.resolve_asset_graph()
            return definitions


def error_of(folders: Mapping[str, tuple[str, Mapping[str, Any]]]) -> str:
    """Everything that the error of loading says, causes included."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps the error in types of its own
        load(folders)
    parts, error = [], caught.value
    while error is not None:
        parts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def keys(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


VIDEOS = ("VideoDataset", {"dataset_path": "raw.json", "num_shards": 3})
IMAGES = ("ImageDataset", {"dataset_path": "images.jsonl", "num_shards": 1})


def test_a_folder_is_a_lane_and_its_name_the_datasets():
    definitions = load({"cooking": VIDEOS, "pictures": IMAGES})
    stages = ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")
    assert keys(definitions) == {f"cooking/{stage}" for stage in stages} | {
        f"pictures/{stage}" for stage in ("records", "training_jsonl", "train_jsonl")
    }
    graph = definitions.resolve_asset_graph()
    shards = graph.get(dg.AssetKey(["cooking", "visidx"])).partitions_def
    assert shards is not None
    assert list(shards.get_partition_keys()) == ["shard00of03", "shard01of03", "shard02of03"]
    assert graph.get(dg.AssetKey(["cooking", "train_jsonl"])).partitions_def is None


def test_every_lane_asset_depends_directly_on_raw_videos():
    graph = load({"cooking": VIDEOS}).resolve_asset_graph()
    raw = dg.AssetKey(["cooking", "raw_videos"])
    for stage in ("visidx", "mosaics", "training_jsonl", "train_jsonl"):
        assert raw in graph.get(dg.AssetKey(["cooking", stage])).parent_keys


def test_mosaics_of_a_mixture_come_from_the_datasets_it_names():
    mixture = ("Mixture", {"datasets": [{"dataset": "cooking", "weight": 0.5}, {"dataset": "pictures", "count": 10}]})
    graph = load({"cooking": VIDEOS, "pictures": IMAGES, "both": mixture}).resolve_asset_graph()
    assert graph.get(dg.AssetKey(["both", "mixture"])).parent_keys == {
        dg.AssetKey(["cooking", "train_jsonl"]),
        dg.AssetKey(["pictures", "train_jsonl"]),
    }


def test_a_mixture_of_a_dataset_that_does_not_exist_is_refused():
    mixture = ("Mixture", {"datasets": [{"dataset": "coking"}]})
    told = error_of({"cooking": VIDEOS, "both": mixture})
    assert "mixture both names dataset 'coking', which is not defined" in told
    assert "cooking" in told


def test_a_mixture_of_a_mixture_is_refused():
    inner = ("Mixture", {"datasets": [{"dataset": "cooking"}]})
    outer = ("Mixture", {"datasets": [{"dataset": "inner"}]})
    assert "names dataset 'inner', which is not defined" in error_of(
        {"cooking": VIDEOS, "inner": inner, "outer": outer}
    )


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({}, "dataset_path"),
        ({"dataset_path": "x", "num_shards": "many"}, "num_shards"),
        ({"dataset_path": "x", "num_shards": 0}, "num_shards is 0; it must be at least 1"),
        ({"dataset_path": "x", "signal": "sound"}, "'auto', 'residual', 'motion' or 'reencode'"),
        ({"dataset_path": "x", "padding_polici": "zero"}, "padding_polici"),
        ({"dataset_path": "x", "padding_policy": "exclude"}, "padding_policy exclude does not fill whole mosaics"),
        ({"dataset_path": "x", "failure_limit": 5}, "failure_limit is 5.0, expected a share between 0 and 1"),
        ({"dataset_path": "x", "geometry": {"square_size": 577}}, "577 is not a multiple of patch_size 16"),
        (
            {"dataset_path": "x", "keep_first_full_frame": True, "keep_uniform_first": True},
            "contradict each other",
        ),
    ],
)
def test_bad_attributes_are_named_with_their_folder(attributes: dict[str, Any], told: str):
    error = error_of({"cooking": ("VideoDataset", attributes)})
    assert told in error
    assert "cooking" in error


def test_a_folder_name_that_makes_no_asset_key_is_refused():
    assert "may hold letters, digits and _ only" in error_of({"my-videos": VIDEOS})


def test_options_reach_the_library_and_unset_ones_keep_its_defaults(tmp_path: Path):
    attributes = {
        "dataset_path": "raw/records.json",
        "media_root": "/data/videos",
        "allowed_roots": ["/data"],
        "geometry": TINY,
        "signal": "motion",
        "intra": "zero",
        "normalize": "clip",
        "padding_policy": "repeat",
        "keep_uniform_first": True,
        "w_mv": 0.5,
        "damaged": "fail",
        "allowed_codecs": ["h264"],
        "jpeg_quality": 90,
        "paths": "relative",
        "workers": 7,
        "timeout": 12.5,
    }
    spec = VideoDataset.from_attributes_dict(attributes=attributes).lane("x", tmp_path).dataset.spec
    assert spec.dataset_path == tmp_path / "raw/records.json"
    assert (spec.media_root, spec.allowed_roots) == (Path("/data/videos"), (Path("/data"),))
    assert spec.choose.geometry == spec.pack.geometry
    assert (spec.choose.geometry.sequence_length, spec.choose.geometry.num_images) == (8, 2)
    assert (spec.choose.signal, spec.choose.signals.intra, spec.choose.energy.normalize) == ("motion", "zero", "clip")
    assert (spec.choose.select.padding_policy, spec.choose.select.keep_first_full_frame) == ("repeat", False)
    assert (spec.choose.energy.w_mv, spec.choose.energy.w_res) == (0.5, 1.0)
    assert (spec.choose.damaged, spec.choose.allowed_codecs, spec.pack.jpeg_quality) == ("fail", ("h264",), 90)
    assert (spec.paths, spec.run.num_workers, spec.run.timeout) == ("relative", 7, 12.5)
    plain = VideoDataset.from_attributes_dict(attributes={"dataset_path": "x"}).lane("x", tmp_path).dataset.spec
    assert plain.choose == type(plain.choose)()
    assert plain.pack == type(plain.pack)()
