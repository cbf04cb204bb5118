"""`ov validate`: a sound training JSONL passes; each way to break it is reported by its own code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ov_model.checks import check_images, check_positions, check_row, row_kind
from ov_model.codec.energy import SquareMap
from ov_model.errors import UsageError
from ov_model.geometry import Geometry
from ov_model.lake.layout import mosaic_name, pack_folder, stage1_prefix
from ov_model.mosaic.write import PackOptions, write_pack
from ov_model.validate import print_validation, validate_jsonl
from tests.factories import texture

GEOMETRY = Geometry(sequence_length=4, num_images=2, square_size=64, patch_size=16)
PUBLISHED_ROOT = (
    "/workspace/OV-Encoder-Llava/examples/training_data_demo/output/stage2/"
    "sample_XwB-dkS5BVM__ytb_XwB-dkS5BVM__58574aa9"
)

Row = dict[str, Any]


@dataclass
class Pack:
    """A small dataset on disk: the rows of its JSONL and its folder, ready to be broken."""

    root: Path
    rows: list[Row]

    @property
    def jsonl(self) -> Path:
        return self.root / "train.jsonl"

    @property
    def video(self) -> Row:
        return self.rows[0]

    def image(self, index: int = 0) -> Path:
        return self.root / self.video["image"][index]

    @property
    def positions(self) -> Path:
        return self.root / self.video["positions_thw"]

    @property
    def visidx(self) -> Path:
        return next((self.root / "visidx").glob("*.visidx_thw.npy"))

    def change_positions(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        np.save(self.positions, change(np.load(self.positions)))

    def write(self) -> Path:
        self.jsonl.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return self.jsonl


def make_pack(root: Path, *, stage1: bool = False) -> Pack:
    """One video of 64 x 32 pixels (padding above and below), one image and one text row."""
    media, sample_id = "videos/clip.mp4", "v0"
    square = SquareMap.fit(32, 64, GEOMETRY.square_size)
    visidx_K3 = chosen_positions()
    folder = f"images/{pack_folder(media, sample_id)}"
    contents = [(t, texture(square.Hn, square.Wn, t)) for t in range(GEOMETRY.sequence_length)]
    frame_ids_T = np.arange(GEOMETRY.sequence_length, dtype=np.int32)
    options = PackOptions(geometry=GEOMETRY)
    write_pack(root / folder, media, contents, frame_ids_T, visidx_K3, square, options)
    if stage1:
        write_stage1(root / "visidx", media, sample_id, visidx_K3, square)
    Image.fromarray(texture(20, 30, 9)).save(root / "photo.png")
    images = [f"{folder}/{mosaic_name(media, i)}" for i in range(GEOMETRY.num_images)]
    turns = {"video": "<image>\n<image>\nWhat moves?", "image": "<image>\nWhat is it?", "text": "What is two?"}
    talk = {
        kind: [{"from": "human", "value": question}, {"from": "gpt", "value": "It."}]
        for kind, question in turns.items()
    }
    rows: list[Row] = [
        {
            "id": sample_id,
            "conversations": talk["video"],
            "image": images,
            "positions_thw": f"{folder}/positions_thw.npy",
        },
        {"id": 7, "conversations": talk["image"], "image": "photo.png"},
        {"id": "t0", "conversations": talk["text"]},
    ]
    return Pack(root, rows)


def chosen_positions() -> np.ndarray:
    """int32 [K, 3] as stage 1 writes it: frame 0 in raster order, then the content of frames 3 and 1, backwards."""
    grid = GEOMETRY.grid
    first = [(0, h, w) for h in range(grid) for w in range(grid)]
    later = [(t, h, w) for t in (3, 1) for h in (2, 1) for w in reversed(range(grid))]
    return np.array(first + later, np.int32)


def write_stage1(
    folder: Path, media: str, sample_id: str, visidx_K3: np.ndarray, square: SquareMap, **more: Any
) -> None:
    """Stage-1 files with the meta fields that validation reads."""
    folder.mkdir(exist_ok=True)
    prefix = folder / stage1_prefix(media, sample_id, 0, GEOMETRY, len(visidx_K3))
    meta = {
        "sample_id": sample_id,
        "video": media,
        "T": GEOMETRY.sequence_length,
        "square_size": GEOMETRY.square_size,
        "patch": GEOMETRY.patch_size,
        "keep_frames_equiv": GEOMETRY.num_images,
        "keep_first_full_frame": True,
        "pad_info": asdict(square),
        **more,
    }
    np.save(f"{prefix}.visidx_thw.npy", visidx_K3)
    Path(f"{prefix}.meta.json").write_text(json.dumps(meta))


def resave(path: Path, change: Callable[[Image.Image], Image.Image] = lambda image: image, **options: Any) -> None:
    """Save an image again, changed, as the packer would but for the given options."""
    with Image.open(path) as image:
        changed = change(image.convert("RGB"))
    changed.save(path, **{"format": "JPEG", "quality": 95, "subsampling": "4:2:0", **options})


def set_turn(row: Row, number: int, **fields: Any) -> None:
    row["conversations"][number].update(fields)


def swap_rows(pos: np.ndarray) -> np.ndarray:
    """Two rows of frame 1 change places."""
    pos[[-1, -2]] = pos[[-2, -1]]
    return pos


def set_cell(row: int, axis: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(pos: np.ndarray) -> np.ndarray:
        pos[row, axis] = value
        return pos

    return change


def drop_from_first(pos: np.ndarray) -> np.ndarray:
    """A patch of frame 0 is given up for one of frame 2; still sorted and unique."""
    kept = np.concatenate([np.delete(pos, 5, axis=0), [[2, 1, 1]]]).astype(np.int32)
    return kept[np.lexsort((kept[:, 2], kept[:, 1], kept[:, 0]))]


def other_choice(pos: np.ndarray) -> np.ndarray:
    """A patch of frame 3 stands for another one of frame 3."""
    return set_cell(len(pos) - 1, 1, 3)(pos)


def swap_files(pack: Pack) -> None:
    """Two mosaics change places on disk: names and order stay right, the content does not."""
    first, second = pack.image(0), pack.image(1)
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def to_other_folder(pack: Pack) -> None:
    other = pack.root / "images" / "sample_other__clip__00000000"
    other.mkdir()
    os.link(pack.image(1), other / pack.image(1).name)
    pack.video["image"][1] = str(other.relative_to(pack.root) / pack.image(1).name)


MUTATIONS: dict[str, Callable[[Pack], Any]] = {
    "bad_conversations": lambda p: p.video.update(conversations=[]),
    "bad_id": lambda p: p.video.update(id=["v0"]),
    "bad_image_field": lambda p: p.rows[1].update(image={"path": "photo.png"}),
    "bad_positions_field": lambda p: p.video.update(positions_thw=[[0, 0, 0]]),
    "bad_role": lambda p: set_turn(p.video, 1, **{"from": "assistant"}),
    "bad_turn": lambda p: set_turn(p.video, 1, value=None),
    "extra_field": lambda p: p.video.update(video="videos/clip.mp4"),
    "image_count": lambda p: (p.video["image"].pop(), set_turn(p.video, 0, value="<image>\nWhat moves?")),
    "image_format": lambda p: resave(p.image(), format="PNG"),
    "image_mode": lambda p: resave(p.image(), lambda image: image.convert("L"), subsampling=-1),
    "image_order": lambda p: p.video["image"].reverse(),
    "image_quality": lambda p: resave(p.image(), quality=80),
    "image_size": lambda p: resave(p.image(), lambda image: image.resize((48, 48))),
    "image_subsampling": lambda p: resave(p.image(), subsampling="4:4:4"),
    "missing_conversations": lambda p: p.video.pop("conversations"),
    "missing_id": lambda p: p.video.pop("id"),
    "missing_image": lambda p: p.image().unlink(),
    "missing_positions": lambda p: p.positions.unlink(),
    "mixed_pack": to_other_folder,
    "no_positions": lambda p: p.video.pop("positions_thw"),
    "placeholder_count": lambda p: set_turn(p.video, 0, value="<image>\nWhat moves?"),
    "placeholder_in_answer": lambda p: set_turn(p.video, 1, value="<image> It."),
    "positions_dtype": lambda p: p.change_positions(lambda pos: pos.astype(np.int64)),
    "positions_first_full": lambda p: p.change_positions(drop_from_first),
    "positions_grid_range": lambda p: p.change_positions(set_cell(-1, 2, GEOMETRY.grid)),
    "positions_order": lambda p: p.change_positions(swap_rows),
    "positions_repeated": lambda p: p.change_positions(set_cell(-1, 2, 2)),
    "positions_shape": lambda p: p.change_positions(lambda pos: pos[:-1]),
    "positions_time_range": lambda p: p.change_positions(set_cell(-1, 0, GEOMETRY.sequence_length)),
    "repeated_row": lambda p: p.rows.append(p.rows[0]),
    "turn_order": lambda p: p.video["conversations"].reverse(),
    "unanswered": lambda p: p.video["conversations"].pop(),
    "unreadable_image": lambda p: p.image().write_bytes(p.image().read_bytes()[:-40]),
    "unreadable_positions": lambda p: np.save(p.positions, np.array([{}], object), allow_pickle=True),
}
STAGE1_MUTATIONS: dict[str, Callable[[Pack], Any]] = {
    "positions_not_chosen": lambda p: p.change_positions(other_choice),
    "padding_not_black": swap_files,
    "unreadable_visidx": lambda p: p.visidx.write_bytes(b"\x93NUMPY"),
}
LINES = {
    "blank_line": b"\n",
    "not_json": b'{"id": "v1", "conversations": [{"from"\n',
    "not_object": b'["v1"]\n',
    "not_utf8": b'{"id": "\xff"}\n',
}


def test_a_sound_jsonl_passes(tmp_path: Path) -> None:
    found = validate_jsonl(make_pack(tmp_path).write(), geometry=GEOMETRY)
    assert found.ok, found.problems
    assert found.exit_code == 0
    assert (found.rows, found.video_rows, found.image_rows, found.text_rows, found.images) == (3, 1, 1, 1, 3)
    assert found.compared == 0


def test_the_choice_of_stage_1_is_compared_and_gives_the_geometry(tmp_path: Path) -> None:
    found = validate_jsonl(make_pack(tmp_path, stage1=True).write())
    assert found.ok, found.problems
    assert found.compared == 1
    assert found.geometry == GEOMETRY


@pytest.mark.parametrize("code", MUTATIONS)
def test_a_mutation_is_reported_by_its_own_code(tmp_path: Path, code: str) -> None:
    pack = make_pack(tmp_path)
    MUTATIONS[code](pack)
    found = validate_jsonl(pack.write(), geometry=GEOMETRY)
    assert list(found.counts) == [code]
    assert found.exit_code == 1
    assert found.bad_rows == 1
    assert found.problems[0].line == (2 if code == "bad_image_field" else 4 if code == "repeated_row" else 1)


@pytest.mark.parametrize("code", STAGE1_MUTATIONS)
def test_a_mutation_that_only_stage_1_reveals(tmp_path: Path, code: str) -> None:
    pack = make_pack(tmp_path, stage1=True)
    STAGE1_MUTATIONS[code](pack)
    assert list(validate_jsonl(pack.write()).counts) == [code]
    assert validate_jsonl(pack.jsonl, image_root=tmp_path, visidx_root=None).counts == {code: 1}


@pytest.mark.parametrize("code", LINES)
def test_a_broken_line_is_reported_and_the_rest_is_read(tmp_path: Path, code: str) -> None:
    jsonl = make_pack(tmp_path).write()
    jsonl.write_bytes(LINES[code] + jsonl.read_bytes())
    found = validate_jsonl(jsonl, geometry=GEOMETRY)
    assert found.counts == {code: 1}
    assert found.problems[0].line == 1
    assert found.video_rows == 1


def test_every_message_differs_and_says_what_was_expected(tmp_path: Path) -> None:
    messages = []
    for code, mutate in MUTATIONS.items():
        folder = tmp_path / code
        folder.mkdir()
        pack = make_pack(folder)
        mutate(pack)
        messages += [
            p.message.replace(str(folder), "") for p in validate_jsonl(pack.write(), geometry=GEOMETRY).problems
        ]
    assert len(set(messages)) == len(MUTATIONS)


def test_relative_paths_are_read_from_the_dataset_root_of_a_shards_file(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    shard = tmp_path / "jsonl" / "shard00of01.jsonl"
    shard.parent.mkdir()
    pack.write().rename(shard)
    assert validate_jsonl(shard, geometry=GEOMETRY).ok


def test_relative_paths_are_read_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    jsonl = make_pack(tmp_path / "data").write().rename(tmp_path / "elsewhere.jsonl")
    found = validate_jsonl(jsonl, geometry=GEOMETRY)
    assert found.counts == {"missing_image": 3, "missing_positions": 1}
    assert "--image_root" in found.problems[0].message
    assert validate_jsonl(jsonl, geometry=GEOMETRY, image_root=tmp_path / "data").ok
    monkeypatch.chdir(tmp_path / "data")
    assert validate_jsonl(jsonl, geometry=GEOMETRY).ok


def test_remap_replaces_whole_folder_names(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    for row in pack.rows[:2]:
        moved = [f"/gone/{path}" for path in ([row["image"]] if isinstance(row["image"], str) else row["image"])]
        row["image"] = moved if isinstance(row["image"], list) else moved[0]
    pack.video["positions_thw"] = f"/gone/{pack.video['positions_thw']}"
    pack.write()
    assert validate_jsonl(pack.jsonl, geometry=GEOMETRY, remap=[("/gone", str(tmp_path))]).ok
    found = validate_jsonl(pack.jsonl, geometry=GEOMETRY, remap=[("/go", str(tmp_path))])
    assert found.counts["missing_image"] == 3
    assert "--remap" in found.problems[0].message


def test_an_empty_file_has_no_rows_and_no_problems(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    found = validate_jsonl(tmp_path / "train.jsonl")
    assert found.ok
    assert found.rows == 0


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.jsonl"):
        validate_jsonl(tmp_path / "train.jsonl")


def test_a_sample_without_stage_1_files_is_reported_only_when_the_comparison_was_asked_for(tmp_path: Path) -> None:
    jsonl = make_pack(tmp_path).write()
    (tmp_path / "visidx").mkdir()
    assert validate_jsonl(jsonl, geometry=GEOMETRY).ok
    found = validate_jsonl(jsonl, geometry=GEOMETRY, visidx_root=tmp_path / "visidx")
    assert found.counts == {"missing_visidx": 1}


def test_the_repeated_tail_that_stage_1_recorded_is_exempt(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, stage1=True)
    tail = 3
    visidx_K3 = chosen_positions()
    visidx_K3[-tail:] = visidx_K3[-tail - 1]
    square = SquareMap.fit(32, 64, GEOMETRY.square_size)
    np.save(pack.positions, visidx_K3[np.lexsort(visidx_K3.T[::-1])])
    write_stage1(tmp_path / "visidx", "videos/clip.mp4", "v0", visidx_K3, square)
    assert validate_jsonl(pack.write()).counts == {"positions_repeated": 1}
    write_stage1(tmp_path / "visidx", "videos/clip.mp4", "v0", visidx_K3, square, repeated_tail=tail)
    assert validate_jsonl(pack.jsonl).ok


def test_a_mixture_may_repeat_rows(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    MUTATIONS["repeated_row"](pack)
    pack.write()
    assert validate_jsonl(pack.jsonl, geometry=GEOMETRY, unique_rows=False).ok
    (tmp_path / "train.jsonl.manifest.json").write_text("{}")
    assert validate_jsonl(pack.jsonl, geometry=GEOMETRY).ok


def test_first_full_can_be_waived(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    pack.change_positions(drop_from_first)
    assert validate_jsonl(pack.write(), geometry=GEOMETRY, first_full=False).ok


def test_rows_that_share_a_pack_are_each_reported_though_it_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = make_pack(tmp_path)
    pack.rows = [{**pack.video, "id": f"v{i}"} for i in range(5)]
    pack.image(1).unlink()
    calls = []
    monkeypatch.setattr(
        "ov_model.validate.check_images", lambda *args, **kw: calls.append(args) or check_images(*args, **kw)
    )
    found = validate_jsonl(pack.write(), geometry=GEOMETRY)
    assert found.counts == {"missing_image": 5}
    assert [problem.sample_id for problem in found.problems] == ["v0", "v1", "v2", "v3", "v4"]
    assert len(calls) == 1


def test_problems_are_counted_in_full_and_kept_up_to_a_limit(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    pack.rows = [{"id": i} for i in range(500)]
    found = validate_jsonl(pack.write(), geometry=GEOMETRY, keep=7)
    assert found.counts == {"missing_conversations": 500}
    assert [problem.line for problem in found.problems] == list(range(1, 8))


def test_progress_ends_at_the_whole_file(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    told: list[tuple[int, int, int]] = []
    validate_jsonl(pack.write(), geometry=GEOMETRY, on_progress=lambda *told_now: told.append(told_now))
    size = pack.jsonl.stat().st_size
    assert told[-1] == (3, size, size)


def test_printing_names_code_count_line_and_message(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    pack.video["id"] = "v\ud800[bold]"
    pack.image().unlink()
    console = Console(record=True, width=100, file=open(os.devnull, "w"))
    found = validate_jsonl(pack.write(), geometry=GEOMETRY)
    print_validation(found, console)
    text = console.export_text()
    assert "missing_image × 1" in text
    assert "line 1, id v?[bold]: " in text
    assert "3 rows (1 video, 1 image, 1 text), 3 images: 1 rows with problems" in text
    assert json.loads(json.dumps(found.as_dict()))["counts"] == {"missing_image": 1}


def test_a_leading_system_turn_is_allowed() -> None:
    turns = [{"from": name, "value": "x"} for name in ("system", "human", "gpt", "human", "gpt")]
    assert check_row({"id": "t", "conversations": turns}, GEOMETRY) == []


def test_kinds_of_rows() -> None:
    assert row_kind({"image": "a.jpg"}) == "image"
    assert row_kind({"image": ["holiday/a_000.jpg", "holiday/a_001.jpg"]}) == "image"
    assert row_kind({"image": ["sample_a__b__c/b_000.jpg", "sample_a__b__c/b_001.jpg"]}) == "video"
    assert row_kind({"image": "a.jpg", "positions_thw": "p.npy"}) == "video"
    assert row_kind({}) == "text"


def test_the_rows_of_stage_1_come_by_score_and_are_checked_without_order() -> None:
    pos_K3 = chosen_positions()
    assert [p.code for p in check_positions(pos_K3, GEOMETRY, first_full=True)] == ["positions_order"]
    assert check_positions(pos_K3, GEOMETRY, first_full=True, ordered=False) == []


def published(shared: Path, tmp_path: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The published JSONL with links to its files in a folder that can be changed."""
    folder = tmp_path / "stage2"
    folder.mkdir()
    for path in (shared / "reference" / "stage2").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return shared / "reference" / "training_codec.jsonl", [(PUBLISHED_ROOT, str(folder))]


@pytest.fixture
def shared() -> Path:
    root = os.environ.get("OV_SHARED_DATA")
    if not root:
        pytest.skip("OV_SHARED_DATA is not set")
    return Path(root)


def test_the_published_jsonl_passes(shared: Path, tmp_path: Path) -> None:
    jsonl, remap = published(shared, tmp_path)
    found = validate_jsonl(jsonl, remap=remap, visidx_root=shared / "reference" / "stage1")
    assert found.ok, found.problems
    assert (found.rows, found.video_rows, found.images, found.compared) == (1, 1, 8, 1)


@pytest.mark.parametrize(
    ("code", "mutate"),
    [
        ("positions_order", lambda folder, pos: np.save(folder / "positions_thw.npy", swap_rows(pos))),
        ("positions_not_chosen", lambda folder, pos: np.save(folder / "positions_thw.npy", move_last(pos))),
        ("padding_not_black", lambda folder, pos: exchange(folder, 0, 5)),
        ("missing_image", lambda folder, pos: (folder / "ytb_XwB-dkS5BVM_003.jpg").unlink()),
        ("image_size", lambda folder, pos: resave(folder / "ytb_XwB-dkS5BVM_003.jpg", lambda i: i.resize((504, 504)))),
    ],
)
def test_the_published_jsonl_broken(
    shared: Path, tmp_path: Path, code: str, mutate: Callable[[Path, np.ndarray], Any]
) -> None:
    jsonl, remap = published(shared, tmp_path)
    folder = Path(remap[0][1])
    mutate(folder, np.load(folder / "positions_thw.npy"))
    found = validate_jsonl(jsonl, remap=remap, visidx_root=shared / "reference" / "stage1")
    assert found.counts == {code: 1}


def move_last(pos: np.ndarray) -> np.ndarray:
    """The last row moves to a cell of the last frame that was not chosen and keeps the order."""
    pos[-1] = (63, 35, 35)
    return pos


def exchange(folder: Path, first: int, second: int) -> None:
    one, two = (folder / f"ytb_XwB-dkS5BVM_{i:03d}.jpg" for i in (first, second))
    saved = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(saved)
