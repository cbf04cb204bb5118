"""What an asset's description says: what it is, and what it reads of each of its inputs."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

_MEANINGS = {
    "records": "the numbered rows of the raw dataset, a file per shard",
    "raw_videos": "where each medium lies, its size and content hash: a changed file makes this stale",
    "visidx": "the chosen patches (t, h, w) and the sampled frames of each video",
    "mosaics": "the pictures that rows name, and the positions of their tiles",
    "training_jsonl": "the training rows of each shard",
    "train_jsonl": "all training rows of the dataset, in order",
    "mixture": "the training rows, drawn from several datasets",
    "token_lengths": "lengths of the rows in tokens",
    "projector": "the trained `mm_projector.bin` to start from",
    "checkpoint": "the export that `from_pretrained` loads",
    "benchmark_videos": "questions and videos, at a pinned revision",
    "benchmark_assets": "the codec asset of each video, which is looked up for every question",
    "scores": "metrics of a checkpoint on a benchmark, with HIT, MISS and invalid",
}


def described(text: str, reads: Iterable[dg.AssetKey], own: str = "") -> str:
    """A description in Markdown.

    Args:
        text: what the asset is; reads: what it depends on; own: what its component's YAML says of it.
    """
    parts = [text]
    lines = [f"- `{key.to_user_string()}`: {_MEANINGS[key.path[-1]]}" for key in reads]
    if lines:
        parts.append("**Reads**\n\n" + "\n".join(lines))
    if own:
        parts.append(own)
    return "\n\n".join(parts)
