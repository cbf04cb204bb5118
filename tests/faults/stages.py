"""The three tools on one small dataset: as commands that can be disturbed, and what they make undisturbed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov_model import precompute, stage1, stage2
from ov_model.precompute import PrecomputeConfig
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from tests.factories import make_record, make_video, write_dataset
from tests.faults.processes import Running, expect_same_ledgers, expect_tidy, lines, outputs, ov

VIDEOS, WORKERS = 14, 2
_GEOMETRY = ("--square_size", 64)


@dataclass(frozen=True)
class Playground:
    """A dataset at `folder` and what each tool makes of it in `calm`."""

    folder: Path
    dataset: Path
    videos: Path

    @classmethod
    def make(cls, folder: Path) -> Playground:
        """Make the videos, and run each tool undisturbed, in this process."""
        for i in range(VIDEOS):
            make_video(folder / f"v{i}.mp4", width=320, height=192, frames=40, seed=i, pattern="pan")
        names = [f"v{i}" for i in range(VIDEOS)]
        dataset = write_dataset(folder / "raw.json", [make_record(f"{name}.mp4", id=name) for name in names])
        rows = [{"video": str(folder / f"{name}.mp4"), "key": name} for name in names]
        made = cls(folder, dataset, write_dataset(folder / "videos.jsonl", rows))
        for tool in TOOLS:
            made.run_here(tool, folder / "calm" / tool)
        return made

    def run_here(self, tool: str, out: Path, num_workers: int = 0) -> None:
        """A tool in this process, into `out`."""
        options: dict[str, Any] = {"num_workers": num_workers, "square_size": 64}
        if tool == "stage1":
            stage1.run(
                Stage1Config(
                    dataset_path=self.dataset, out_root=out, media_root=self.folder, sequence_length=8,
                    keep_frames_equiv=2, **options,
                )
            )  # fmt: skip
        elif tool == "stage2":
            stage2.run(
                Stage2Config(
                    input_dataset=self.dataset, visidx_root=self.folder / "calm" / "stage1",
                    out_image_root=out / "images", out_jsonl=out / "train.jsonl", media_root=self.folder, T=8,
                    num_images=2, **options,
                )
            )  # fmt: skip
        else:
            precompute.run(PrecomputeConfig(jsonl=self.videos, out_root=out, seq_len_frames=8, num_images=2, **options))

    def arguments(self, tool: str, out: Path) -> list[object]:
        """The same as arguments of `ov`."""
        common = (*_GEOMETRY, "--num_workers", WORKERS)
        root = ("--media_root", self.folder, *common)
        if tool == "stage1":
            sizes = ("--sequence_length", 8, "--keep_frames_equiv", 2)
            return ["stage1", "--dataset_path", self.dataset, "--out_root", out, *sizes, *root]
        if tool == "stage2":
            made = ("--input_dataset", self.dataset, "--visidx_root", self.folder / "calm" / "stage1")
            where = ("--out_jsonl", out / "train.jsonl", "--out_image_root", out / "images")
            return ["stage2", *made, *where, "--T", 8, "--num_images", 2, *root]
        sizes = ("--seq_len_frames", 8, "--num_images", 2)
        return ["precompute", "--jsonl", self.videos, "--out_root", out, *sizes, *common]

    def start(self, tool: str, out: Path) -> Running:
        """A tool as a command, into `out`."""
        return ov(*self.arguments(tool, out))

    def journal(self, tool: str, out: Path) -> Path:
        """Where a tool notes what it has finished."""
        folder, stage = {
            "stage1": (out, "visidx"),
            "stage2": (out / "images", "mosaics"),
            "precompute": (out, "assets"),
        }[tool]
        return folder / "ledger" / f"{stage}.shard00of01.journal.jsonl"

    def under_way(self, tool: str, out: Path) -> bool:
        """Whether a tool has finished some samples and has others before it."""
        return lines(self.journal(tool, out)) >= 4

    def expect_as_undisturbed(self, tool: str, out: Path) -> None:
        """`out` holds, byte for byte, what the undisturbed run made, and nothing else."""
        expect_tidy(out)
        ours, theirs = _comparable(out), _comparable(self.folder / "calm" / tool)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name] != theirs[name]] == []
        expect_same_ledgers(out, self.folder / "calm" / tool)


TOOLS = ("stage1", "stage2", "precompute")


def _comparable(folder: Path) -> dict[str, bytes]:
    """Outputs without the times in meta files and the folder in the rows of a JSONL."""
    found = outputs(folder)
    for name in found:
        if name.endswith("/meta.json"):
            found[name] = json.dumps({**json.loads(found[name]), "created_at": "", "stats": {}}).encode()
        elif name == "train.jsonl":
            found[name] = found[name].replace(str(folder).encode(), b"").replace(folder.name.encode(), b"")
    return found
