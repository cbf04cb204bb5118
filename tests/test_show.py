"""`ov show`: a sample is found by its files, its id or its key, and its picture shows what was chosen."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ov_model.codec.choose import ChooseOptions
from ov_model.codec.energy import SquareMap
from ov_model.errors import MissingFile, UsageError
from ov_model.geometry import Geometry
from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.lake.workers import RunOptions
from ov_model.mosaic.write import PackOptions
from ov_model.picture import ACCENT, Sheet, chosen_cells, draw_sheet, light_chosen
from ov_model.show import find_sample, make_sheet, print_shown, show_sample
from tests.factories import make_image, make_record, make_video, truncate, write_dataset

SMALL = Geometry(sequence_length=8, num_images=2, square_size=64, patch_size=16)
SQUARE = SquareMap.fit(64, 64, 64)
RED = (200, 30, 40)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with one dataset: two videos (one of them in two records), one broken, one image."""
    raw = tmp_path_factory.mktemp("raw")
    for name, seed in (("one", 0), ("two", 1), ("broken", 2)):
        make_video(raw / f"{name}.mp4", seed=seed)
    truncate(raw / "broken.mp4", 0.3)
    make_image(raw / "photo.png")
    records = [
        make_record("one.mp4", id="first"),
        make_record("one.mp4", id="shared", question="What moves first?"),
        make_record("two.mp4", id="shared", question="What moves then?"),
        make_record("one.mp4", id="twice", question="What?"),
        make_record("one.mp4", id="twice", question="Which?"),
        make_record("broken.mp4", id="broken"),
        make_record("photo.png", id="photo", kind="image"),
    ]
    spec = DatasetSpec(
        "demo",
        write_dataset(raw / "raw.json", records),
        tmp_path_factory.mktemp("lake") / "demo",
        num_shards=1,
        media_root=raw,
        choose=ChooseOptions(geometry=SMALL),
        pack=PackOptions(SMALL),
        run=RunOptions(num_workers=1),
    )
    dataset = Dataset(spec)
    dataset.index_records()
    (shard,) = dataset.shards
    dataset.raw_videos(shard)
    dataset.visidx_and_mosaics(shard)
    return dataset.root.parent


def meta_of(lake: Path, sample_id: str) -> Path:
    return next((lake / "demo" / "visidx").glob(f"sample_{sample_id}__*.meta.json"))


def test_a_sample_of_a_lake_is_found_by_id_and_by_key(lake: Path) -> None:
    by_id = find_sample("first", lake=lake)
    assert by_id.video.name == "one.mp4"
    assert [path.name for path in by_id.mosaics] == ["one_000.jpg", "one_001.jpg"]
    assert find_sample("one.mp4|first|0", lake=lake) == by_id
    assert find_sample("first", lake=lake / "demo") == by_id


@pytest.mark.parametrize("suffix", [".meta.json", ".visidx_thw.npy", ".frame_ids.npy", ""])
def test_a_sample_is_found_by_its_files_and_the_ledger_beside_them(lake: Path, suffix: str) -> None:
    path = Path(str(meta_of(lake, "first")).removesuffix(".meta.json") + suffix)
    assert find_sample(path) == find_sample("first", lake=lake)


def test_an_id_of_several_videos_is_refused_and_their_keys_are_named(lake: Path) -> None:
    with pytest.raises(UsageError, match=r"2 samples have this id") as error:
        find_sample("shared", lake=lake)
    assert "demo: one.mp4|shared|1" in str(error.value)
    assert find_sample("two.mp4|shared|2", lake=lake).video.name == "two.mp4"


def test_an_id_of_several_records_on_one_video_is_no_question(lake: Path) -> None:
    assert find_sample("twice", lake=lake).meta["sample_key"] == "one.mp4|twice|3"


@pytest.mark.parametrize(
    ("sample", "message"),
    [("nobody", "no sample of this id"), ("broken", "unreadable_container"), ("photo", "it has no video")],
)
def test_a_sample_that_has_no_choice_says_why(lake: Path, sample: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_sample(sample, lake=lake)


def test_a_path_without_stage_1_files_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--lake"):
        find_sample(tmp_path / "sample_x.meta.json")


def test_files_apart_from_their_lake_need_the_media_root_and_the_mosaics(lake: Path, tmp_path: Path) -> None:
    source = meta_of(lake, "first")
    for path in source.parent.glob("sample_first__*"):
        shutil.copy(path, tmp_path)
    alone = tmp_path / source.name
    with pytest.raises(MissingFile, match="--media_root"):
        find_sample(alone)
    raw = find_sample("first", lake=lake).video.parent
    assert find_sample(alone, media_root=raw).mosaics == ()
    for folder in (lake / "demo", lake / "demo" / "images", find_sample("first", lake=lake).mosaics[0].parent):
        assert len(find_sample(alone, media_root=raw, mosaics=folder).mosaics) == 2
    with pytest.raises(UsageError, match="no mosaics of first"):
        find_sample(alone, media_root=raw, mosaics=tmp_path)


def test_the_sheet_holds_what_stage_1_and_2_wrote(lake: Path) -> None:
    sample = find_sample("first", lake=lake)
    sheet = make_sheet(sample)
    assert len(sheet.frame_ids_T) == SMALL.sequence_length
    assert set(sheet.frames) == set(sheet.frame_ids_T.tolist())
    assert sheet.pos_K3.shape == (SMALL.num_patches, 3)
    assert [caption.split(":")[0] for caption, _ in sheet.mosaics] == ["mosaic 0", "mosaic 1"]
    assert sheet.mosaics[0][0] == "mosaic 0: t=0"
    assert "signal residual" in sheet.lines[0]


def test_the_picture_is_written_whole_and_in_color(lake: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "first.png"
    sample = show_sample("first", out, lake=lake)
    with Image.open(out) as image:
        assert image.format == "PNG"
        picture = np.asarray(image)
    assert (picture == ACCENT).all(axis=2).any()
    assert [path.name for path in out.parent.iterdir()] == ["first.png"]
    console = Console(record=True, width=200, file=open(os.devnull, "w"))
    print_shown(sample, out, console)
    assert console.export_text().splitlines() == [f"first: {sample.video}, 2 mosaics", str(out)]


def test_chosen_patches_keep_their_color_others_turn_gray_and_the_border_is_drawn() -> None:
    frame = np.full((64, 64, 3), RED, np.uint8)
    chosen = np.zeros((4, 4), bool)
    chosen[1, 2] = True
    picture = np.asarray(light_chosen(frame, chosen, SQUARE, (128, 128)))
    assert (picture[33:63, 65:95] == RED).all()
    left_out = np.concatenate(
        [picture[:32].reshape(-1, 3), picture[64:].reshape(-1, 3), picture[:, :64].reshape(-1, 3)]
    )
    assert (left_out == left_out[0]).all()
    assert len(set(left_out[0].tolist())) == 1
    assert left_out[0, 0] < 60
    edge = (picture == ACCENT).all(axis=2)
    assert edge.sum() == 4 * 32 - 4
    assert edge[32:64, 64:96].sum() == edge.sum()


def test_a_frame_that_is_chosen_whole_or_not_at_all_has_no_border() -> None:
    frame = np.full((64, 64, 3), RED, np.uint8)
    for chosen in (np.ones((4, 4), bool), np.zeros((4, 4), bool)):
        picture = np.asarray(light_chosen(frame, chosen, SQUARE, (128, 128)))
        assert not (picture == ACCENT).all(axis=2).any()


def test_padding_is_cropped_off_and_the_grid_stays_in_place() -> None:
    """Content 64 x 32 in rows 16..47 of the square: its grid rows are 1 and 2."""
    square = SquareMap.fit(32, 64, 64)
    chosen = np.zeros((4, 4), bool)
    chosen[1, 0] = True
    picture = np.asarray(light_chosen(np.full((32, 64, 3), RED, np.uint8), chosen, square, (128, 64)))
    assert (picture[:31, :31] == RED).all()
    assert not (picture[32:] == RED).all(axis=2).any()


def test_cells_are_marked_where_the_positions_say() -> None:
    chosen = chosen_cells(np.array([[0, 1, 2], [3, 0, 0]], np.int32), 4, 4)
    assert np.argwhere(chosen).tolist() == [[0, 1, 2], [3, 0, 0]]


@pytest.mark.parametrize(
    ("count", "height", "width"), [(1, 64, 64), (7, 64, 36), (64, 36, 64), (97, 64, 64), (256, 27, 64)]
)
def test_every_number_of_frames_and_shape_fits_the_sheet(count: int, height: int, width: int) -> None:
    square = SquareMap.fit(height, width, 64)
    frame = np.full((square.Hn, square.Wn, 3), RED, np.uint8)
    everything = np.array([(t, h, w) for t in range(count) for h in range(4) for w in range(4)], np.int32)
    sheet = Sheet("title", ["line"], {0: frame}, np.zeros(count, np.int32), everything, square, 4, [])
    picture = np.asarray(draw_sheet(sheet))
    lit = (picture == RED).all(axis=2)
    drawn = sum(len(runs(lit[start])) for start in runs(lit.any(axis=1)))
    assert drawn == count
    assert not lit[-20:].any()
    assert not lit[:, -20:].any()
    assert picture.size < 60_000_000


def runs(flags: np.ndarray) -> list[int]:
    """Where each run of True starts."""
    return np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0) == 1).tolist()


def test_mosaics_stand_beside_the_frames() -> None:
    blue = Image.new("RGB", (64, 64), (10, 20, 250))
    frame = np.full((64, 64, 3), RED, np.uint8)
    positions = np.array([(0, h, w) for h in range(4) for w in range(4)], np.int32)
    sheet = Sheet("t", [], {0: frame}, np.zeros(4, np.int32), positions, SQUARE, 4, [("a", blue), ("b", blue)])
    picture = np.asarray(draw_sheet(sheet))
    is_blue = (picture == (10, 20, 250)).all(axis=2)
    is_red = (picture == RED).all(axis=2)
    assert np.flatnonzero(is_blue.any(axis=0))[0] > np.flatnonzero(is_red.any(axis=0))[-1]
    assert is_blue.sum() > 2 * 96 * 96


def test_the_published_sample_is_shown(shared_data: Path, tmp_path: Path) -> None:
    meta = next((shared_data / "reference" / "stage1").glob("*.meta.json"))
    out = tmp_path / "published.png"
    stage2 = shared_data / "reference" / "stage2"
    sample = show_sample(meta, out, media_root=shared_data / "demo", mosaics=stage2)
    assert len(sample.mosaics) == 8
    assert json.loads(meta.read_text())["sample_id"] in make_sheet(sample).title
    with Image.open(out) as image:
        assert min(image.size) > 1000
