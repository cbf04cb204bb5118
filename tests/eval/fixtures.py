"""Small data sets in the real schema and archive layout of each benchmark: what the hub holds, with videos made here.

`fixture("videomme", tmp_path)` has `files` (repository path -> bytes) for `tests.eval.hub`, and says how many videos
and questions there are. The columns are those that lmms-eval's task code reads.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.eval.benchmarks import Benchmark, find_benchmark
from tests.factories import make_video, picture

LETTERS = "ABCDE"
MVBENCH_FOLDERS = {
    "action_sequence": "star/Charades_segment",
    "moving_count": "clevrer/video_validation",
    "action_prediction": "star/Charades_segment",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "action_antonym": "ssv2_video_mp4",
    "action_count": "perception/videos",
    "scene_transition": "scene_qa/video",
    "object_shuffle": "perception/videos",
    "object_existence": "clevrer/video_validation",
    "fine_grained_pose": "nturgbd_convert",
    "unexpected_action": "FunQA_test/test",
    "moving_direction": "clevrer/video_validation",
    "state_change": "perception/videos",
    "object_interaction": "star/Charades_segment",
    "character_order": "perception/videos",
    "action_localization": "sta/sta_video_segment",
    "counterfactual_inference": "clevrer/video_validation",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "moving_attribute": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
}


@dataclass(frozen=True)
class Fixture:
    """What the hub holds of one benchmark."""

    benchmark: Benchmark
    files: dict[str, bytes]
    videos: int
    questions: int

    @property
    def repo(self) -> str:
        """Name of the data set."""
        return self.benchmark.repo

    @property
    def branch(self) -> str:
        """Branch that it lies on."""
        return self.benchmark.revision


class Clips:
    """Short clips, each with another picture; made once per folder."""

    def __init__(self, folder: Path, frames: int) -> None:
        self.folder = folder
        self.frames = frames
        folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, seed: int) -> bytes:
        path = self.folder / f"clip_{seed}_{self.frames}.mp4"
        if not path.exists():
            make_video(path, frames=self.frames, seed=seed, velocity=(2 + seed % 3, 1))
        return path.read_bytes()


def fixture(name: str, folder: Path, *, frames: int = 16) -> Fixture:
    """A benchmark's fixture; `folder` keeps the clips, so that several fixtures share them."""
    benchmark = find_benchmark(name)
    files, videos, questions = _MAKERS[benchmark.name](Clips(folder, frames))
    return Fixture(benchmark, files, videos, questions)


Made = tuple[dict[str, bytes], int, int]


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file, its members stored as videos are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return stream.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A tar file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    stream = io.BytesIO()
    pl.DataFrame(list(rows)).write_parquet(stream)
    return stream.getvalue()


def card(configs: Mapping[str, Mapping[str, str]]) -> bytes:
    """README.md whose header names the data files: config -> split -> pattern."""
    lines = ["---", "license: other", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, pattern in splits.items():
            lines += [f"  - split: {split}", f"    path: {pattern}"]
    return "\n".join([*lines, "---", "# A small data set", ""]).encode()


def _options(count: int) -> list[str]:
    return ["a square", "a circle", "a face", "nothing", "a hand"][:count]


def _videomme(clips: Clips) -> Made:
    ids = ["fFjv93ACGo8", "N1cdUjctpG8"]
    rows = [
        {
            "video_id": f"{i:03d}",
            "duration": ("short", "medium")[i],
            "domain": "Knowledge",
            "sub_category": "Humanity & History",
            "url": f"https://www.youtube.com/watch?v={video}",
            "videoID": video,
            "question_id": f"{i:03d}-{q}",
            "task_type": ("Object Recognition", "Counting Problem")[q],
            "question": f"What moves in part {q}?",
            "options": [f"{letter}. {option}" for letter, option in zip(LETTERS, _options(4), strict=False)],
            "answer": LETTERS[q],
        }
        for i, video in enumerate(ids)
        for q in range(2)
    ]
    return (
        {
            "README.md": card({"videomme": {"test": "videomme/test-*"}}),
            "videomme/test-00000-of-00001.parquet": table(rows),
            "videos_chunked_01.zip": zipped({f"data/{ids[0]}.mp4": clips[0]}),
            "videos_chunked_02.zip": zipped({f"data/{ids[1]}.mp4": clips[1]}),
            "subtitle.zip": zipped({f"subtitle/{ids[0]}.srt": b"1\n00:00:00,000 --> 00:00:01,000\na square\n"}),
        },
        2,
        4,
    )


def _mvbench(clips: Clips) -> Made:
    files: dict[str, bytes] = {}
    configs = {}
    for i, (task, folder) in enumerate(MVBENCH_FOLDERS.items()):
        video = _mvbench_video(task, folder)
        rows = [
            {
                "video": video,
                "question": f"What happens ({q})?",
                "candidates": _options(3 + q),
                "answer": _options(3)[q],
            }
            for q in range(1 + i % 2)
        ]
        configs[task] = {"train": f"json/{task}.json"}
        files[f"json/{task}.json"] = json.dumps(rows).encode()
        if task == "episodic_reasoning":
            files |= {f"{folder}/{video}/{t:05d}.jpg": _frame(t) for t in range(1, 13)}
        else:
            files.setdefault(f"{folder}/{video}", clips[len(set(list(MVBENCH_FOLDERS.values())[:i]))])
    return {"README.md": card(configs), **files}, len(set(MVBENCH_FOLDERS.values())), 30


def _mvbench_video(task: str, folder: str) -> str:
    """Two of the folders hold videos of the same name, as the real ones do."""
    if task == "episodic_reasoning":
        return "castle_s01e01_seg02_clip_00"
    if folder.startswith(("clevrer", "perception")):
        return "video_10009.mp4"
    return f"{folder.partition('/')[0]}_1.mp4"


def _frame(t: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture("square", t, 96, 64)).save(stream, "JPEG")
    return stream.getvalue()


def _perceptiontest(clips: Clips) -> Made:
    names = ["video_10009", "video_8241"]
    rows = [
        {
            "video_name": name,
            "question": f"Is it moving ({q})?",
            "question_id": str(q),
            "options": _options(3),
            "answer_id": str(q),
            "area": "Physics",
            "reasoning": "Descriptive",
            "tag": ["Motion"],
        }
        for name in names
        for q in range(2)
    ]
    return (
        {
            "README.md": card({"mc_question_val": {"validation": "mc_question_val/validation-*"}}),
            "mc_question_val/validation-00000-of-00001.parquet": table(rows),
            "videos_chunked_01.zip": zipped({f"videos/{names[0]}.mp4": clips[0]}),
            "videos_chunked_02.zip": zipped({f"videos/{names[1]}.mp4": clips[1]}),
            "valid_audios.zip": zipped({"audios/video_10009.wav": b"RIFF"}),
        },
        2,
        4,
    )


def _nextqa(clips: Clips) -> Made:
    ids = [4882821564, 6233408665]
    rows = [
        {
            "video": video,
            "frame_count": clips.frames,
            "width": 96,
            "height": 64,
            "question": f"why does it move ({q})",
            "answer": q,
            "qid": q,
            "type": "CW",
            **{f"a{i}": option for i, option in enumerate(_options(5))},
        }
        for video in ids
        for q in range(2)
    ]
    open_ended = [{"video": ids[0], "question": "why", "answer": "wind", "qid": 0, "type": "CW"}]
    return (
        {
            "README.md": card({"MC": {"test": "MC/test-*"}, "OE": {"test": "OE/test-*"}}),
            "MC/test-00000-of-00001.parquet": table(rows),
            "OE/test-00000-of-00001.parquet": table(open_ended),
            "videos.zip": zipped({f"NExTVideo/{video}.mp4": clips[i] for i, video in enumerate(ids)}),
        },
        2,
        4,
    )


def _temporalbench(clips: Clips) -> Made:
    def rows(kind: str) -> list[dict[str, Any]]:
        return [
            {
                "video_name": f"{kind}_video/{source}/{i}.mp4",
                "idx": f"{source}-{i}-{q}",
                "question": f"Which caption fits?\nA. The square moves right.\nB. The square moves left ({q}).",
                "GT": "AB"[q],
                "dataset": source,
                "category": "",
            }
            for i, source in enumerate(("ActivityNet", "EgoExo4D"))
            for q in range(2)
        ]

    names = {kind: sorted({row["video_name"] for row in rows(kind)}) for kind in ("short", "long")}
    return (
        {
            "README.md": card({"default": {f"test_{kind}_qa": f"data/test_{kind}_qa-*" for kind in ("short", "long")}}),
            **{f"data/test_{kind}_qa-00000-of-00001.parquet": table(rows(kind)) for kind in ("short", "long")},
            **{
                f"{kind}_video.zip": zipped({name: clips[i] for i, name in enumerate(names[kind])})
                for kind in ("short", "long")
            },
        },
        2,
        4,
    )


def _video_mmmu(clips: Clips) -> Made:
    videos = {"Adaptation": "dev_Music_1", "Comprehension": "new_Accounting_2", "Perception": "validation_Math_3"}
    files = {"README.md": card({config: {"test": f"{config}/test-*"} for config in videos})}
    for config, video in videos.items():
        rows = [
            {
                "id": video,
                "question": "Which one is it? <image 1>",
                "options": _options(4),
                "answer": "B",
                "qa_type": config,
                "question_type": "multiple-choice",
                "link_selected": "",
            }
        ]
        if config == "Adaptation":
            rows.append({**rows[0], "options": [], "answer": "12.5", "question_type": "open"})
        files[f"{config}/test-00000-of-00001.parquet"] = table(rows)
    for i, (discipline, video) in enumerate(zip(("Art", "Business", "Science"), videos.values(), strict=True)):
        files[f"{discipline}.zip"] = zipped({f"{discipline}/{video}.mp4": clips[i]})
    return files, 3, 4


def _tomato(clips: Clips) -> Made:
    paths = ["videos/human/0001-00.mp4", "videos/simulated/0001-00.mp4"]
    rows = [
        {
            "id": f"{i}-{q}",
            "question": f"How does it turn ({q})?",
            "options": _options(4),
            "answer": q,
            "video_path": path,
            "reason_type": "rotation",
            "demonstration_type": path.split("/")[1],
        }
        for i, path in enumerate(paths)
        for q in range(2)
    ]
    return (
        {
            "README.md": card({"default": {"test": "data/test-*"}}),
            "data/test-00000-of-00001.parquet": table(rows),
            "videos.zip": zipped({path: clips[i] for i, path in enumerate(paths)}),
        },
        2,
        4,
    )


def _longvideobench(clips: Clips) -> Made:
    ids = ["86CxyhFV9MI", "7F9IrtSHmc0"]
    rows = [
        {
            "video_id": video,
            "id": f"{video}_{q}",
            "question": f"What happens then ({q})?",
            **{f"option{i}": option if i < 4 + q else "N/A" for i, option in enumerate(_options(5))},
            "correct_choice": q,
            "topic_category": "KH-Knowledge-History",
            "question_category": ("S2E", "TOS")[q],
            "level": "IntraMoment",
            "duration_group": (15, 60)[q],
            "duration": 0.64,
            "starting_timestamp_for_subtitles": 0.0,
            "video_path": f"{video}.mp4",
            "subtitle_path": f"{video}_en.json",
        }
        for video in ids
        for q in range(2)
    ]
    archive = tarred({f"videos/{video}.mp4": clips[i] for i, video in enumerate(ids)})
    middle = len(archive) // 2 + 100
    splits = {"validation": "validation-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"}
    return (
        {
            "README.md": card({"default": splits}),
            splits["validation"]: table(rows),
            splits["test"]: table([{**row, "correct_choice": -1} for row in rows]),
            "lvb_val.json": json.dumps(rows).encode(),
            "videos.tar.part.aa": archive[:middle],
            "videos.tar.part.ab": archive[middle:],
            "subtitles.tar": tarred({f"subtitles/{ids[0]}_en.json": b"[]"}),
        },
        2,
        4,
    )


def _mlvu_dev(clips: Clips) -> Made:
    names = {"needle": "needle_1.mp4", "count": "count_1.mp4"}
    rows = [
        {
            "video_name": name,
            "duration": 0.64,
            "question": f"What is it ({q})?\n" + "\n".join(f"({LETTERS[i]}) {o}" for i, o in enumerate(_options(4))),
            "candidates": _options(4),
            "answer": LETTERS[q],
            "task_type": kind,
        }
        for kind, name in names.items()
        for q in range(2)
    ]
    return (
        {
            "README.md": card({"default": {"test": "data/test-*"}}),
            "data/test-00000-of-00001.parquet": table(rows),
            "video_part_1.zip": zipped({"needle_1.mp4": clips[0]}),
            "video_part_2.zip": zipped({"count_1.mp4": clips[1]}),
        },
        2,
        4,
    )


def _egoschema(clips: Clips) -> Made:
    ids = ["001934bb-81bd-4cd8-a574-0472ef3f6678", "0074f737-11cb-497d-8d07-77c3a8127391"]
    rows = [
        {
            "question_idx": str(i),
            "question": "What does the person do?",
            "video_idx": video,
            "option": [f"{letter}. {option}" for letter, option in zip(LETTERS, _options(5), strict=True)],
            "answer": str(i),
        }
        for i, video in enumerate(ids)
    ]
    hidden = [{**row, "answer": None} for row in rows]
    return (
        {
            "README.md": card({"GENERATION": {"test": "GENERATION/test-*"}, "Subset": {"test": "Subset/test-*"}}),
            "Subset/test-00000-of-00001.parquet": table(rows),
            "GENERATION/test-00000-of-00001.parquet": table(hidden),
            "videos_chunked_01.zip": zipped({f"videos/{ids[0]}.mp4": clips[0]}),
            "videos_chunked_02.zip": zipped({f"videos/{ids[1]}.mp4": clips[1]}),
        },
        2,
        2,
    )


def _lvbench(clips: Clips) -> Made:
    keys = ["Cm73ma6Ibcs", "TiQBTesZUJQ"]
    rows = [
        {
            "key": key,
            "video_path": f"{key}.mp4",
            "uid": str(10 * i + q),
            "question": f"What year ({q})?\n" + "\n".join(f"({LETTERS[k]}) {o}" for k, o in enumerate(_options(4))),
            "answer": LETTERS[q],
            "question_type": ["key information retrieval"],
            "time_reference": "00:15-00:19",
            "type": "cartoon",
        }
        for i, key in enumerate(keys)
        for q in range(2)
    ]
    return (
        {
            "README.md": card({"default": {"train": "data/train-*"}}),
            "data/train-00000-of-00001.parquet": table(rows),
            "video_chunks/videos_chunk_001.zip": zipped({f"{keys[0]}.mp4": clips[0]}),
            "video_chunks/videos_chunk_002.zip": zipped({f"{keys[1]}.mp4": clips[1]}),
        },
        2,
        4,
    )


def _mmvu_val(clips: Clips) -> Made:
    paths = ["videos/Art/0.mp4", "videos/Chemistry/0.mp4"]
    rows = [
        {
            "id": f"validation_{i}",
            "video_path": path,
            "question_type": kind,
            "question": "What is shown?",
            "choices": dict(zip(LETTERS, _options(5) if kind == "multiple-choice" else [""] * 5, strict=True)),
            "answer": "A" if kind == "multiple-choice" else "a square",
        }
        for i, (path, kind) in enumerate(zip(paths, ("multiple-choice", "open-ended"), strict=True))
    ]
    return (
        {
            "README.md": card({"default": {"validation": "data/validation-*"}}),
            "data/validation-00000-of-00001.parquet": table(rows),
            "videos.zip": zipped({path: clips[i] for i, path in enumerate(paths)}),
        },
        2,
        2,
    )


_MAKERS: dict[str, Callable[[Clips], Made]] = {
    "videomme": _videomme,
    "mvbench": _mvbench,
    "perceptiontest": _perceptiontest,
    "nextqa": _nextqa,
    "temporalbench": _temporalbench,
    "video_mmmu": _video_mmmu,
    "tomato": _tomato,
    "longvideobench": _longvideobench,
    "mlvu_dev": _mlvu_dev,
    "egoschema": _egoschema,
    "lvbench": _lvbench,
    "mmvu_val": _mmvu_val,
}
