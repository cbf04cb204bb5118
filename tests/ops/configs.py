"""Small runs of the commands, in this process, on data that lie in one folder."""

from __future__ import annotations

from pathlib import Path

from ov_model.precompute import PrecomputeConfig
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config


def stage1_config(root: Path, **more: object) -> Stage1Config:
    return Stage1Config(
        dataset_path=root / "raw.json", out_root=root / "visidx", media_root=root, num_workers=0, square_size=64,
        sequence_length=8, keep_frames_equiv=2, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def stage2_config(root: Path, **more: object) -> Stage2Config:
    return Stage2Config(
        input_dataset=root / "raw.json", visidx_root=root / "visidx", out_image_root=root / "images",
        out_jsonl=root / "train.jsonl", media_root=root, num_workers=0, square_size=64, T=8, num_images=2,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def assets_config(root: Path, **more: object) -> PrecomputeConfig:
    return PrecomputeConfig(
        jsonl=root / "videos.jsonl", out_root=root / "offline", media_root=root, num_workers=0, square_size=64,
        seq_len_frames=8, num_images=2, **more,  # type: ignore[arg-type]
    )  # fmt: skip
