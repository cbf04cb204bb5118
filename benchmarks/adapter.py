"""What answering costs beside the model: everything that the lmms-eval model does but generating.

    python benchmarks/adapter.py [VIDEOS]

Published geometry, a tiny model with random weights, one question a video. Printed: the share of the run that is not
generation (goal 10 %), and per video the preflight and the reading of an asset, in threads while the model answers.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from ov_model.eval.adapter import OneVisionCodec
from ov_model.eval.visuals import asset_sample
from ov_model.geometry import Geometry
from tests.eval.assets import video, write_asset
from tests.eval.models import requests, tiny_checkpoint


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    torch.set_num_threads(1)
    geometry = Geometry()
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        checkpoint = tiny_checkpoint(home / "checkpoint", geometry)
        clips = [video(home / f"clip{number}.mp4", seed=number, frames=80) for number in range(count)]
        folders = [write_asset(home / "bench_offline" / "assets", c.stem, c, geometry=geometry) for c in clips]
        lm = OneVisionCodec(str(checkpoint), device="cpu", home=home, journal=home / "answers.jsonl", threads=2)
        asked = requests(lm, [{"visual": [str(clip)], "question": "What moves?"} for clip in clips])
        lm.model  # noqa: B018  loading is the checkpoint's cost
        start = time.perf_counter()
        lm.generate_until(asked)
        whole = time.perf_counter() - start
        generating, preflight = lm._seconds["generate"], lm.preflight.seconds["preflight"]
        start = time.perf_counter()
        for folder in folders:
            asset_sample(folder, geometry, folder.name)
        reading = time.perf_counter() - start
        print(f"{count} videos in {whole:.1f} s, {1 - generating / whole:.1%} of it not generation")
        print(f"preflight {preflight / count * 1000:.1f} ms a video, reading an asset {reading / count * 1000:.0f} ms")
        print(f"waiting for pictures {lm._seconds['preprocess'] / whole:.1%} of the run")


if __name__ == "__main__":
    main()
