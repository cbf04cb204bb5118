"""What the index of offline assets costs.

    python benchmarks/offline_index.py [NUMBER]      # 100 000 folders with a small meta each, in the temporary folder

Printed: building it (goal 60 s), opening it from its cache and after one change, as shares of building; one look-up
(goal 1 ms). Folders are made by this script and lie in the page cache; a first reading from disk takes longer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ov_model.eval.offline import OfflineIndex, candidate_keys

LOOKUPS = 2000
CFG = {"seq_len_frames": 64, "num_images": 8, "square_size": 576, "patch_size": 16, "mv_unit_div": 4.0, "mv_pct": 95.0,
       "res_pct": 95.0, "w_mv": 1.0, "w_res": 1.0, "mv_compensate": "median", "res_use_grad": False, "window_len": 0,
       "window_pick": "none", "keep_mid_full_frame": False, "mid_full_frame_index": -1, "topk_mode": "global",
       "time_bucket_count": 0}  # fmt: skip


def make(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"video_{number:06d}"
        folder.mkdir(parents=True)
        meta = {"version": 1, "task": "videomme", "key": folder.name, "video": f"/data/{folder.name}.mp4", "cfg": CFG}
        meta |= {
            "content_hash": f"{number:064x}",
            "size": number,
            "signal": "residual",
            "output_hash": f"{number:064x}",
        }
        (folder / "meta.json").write_text(json.dumps(meta))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as place:
        root, cache = Path(place) / "videomme_offline" / "assets", Path(place) / "index"
        make(root, count)
        built, _ = timed(lambda: OfflineIndex.open([root], cache=cache))
        opened, index = timed(lambda: OfflineIndex.open([root], cache=cache))
        assert index.reports[0].read == 0
        (root / "video_000000" / "meta.json").write_text("{}")
        changed, index = timed(lambda: OfflineIndex.open([root], cache=cache))
        assert index.reports[0].read == 1
        videos = [Path(f"/data/videos/video_{i * (count // LOOKUPS or 1) % count:06d}.mp4") for i in range(LOOKUPS)]
        looked, found = timed(lambda: [index.find("videomme", candidate_keys(video)) for video in videos])
        assert all(found)
        print(f"{count} assets: built in {built:.1f} s")
        print(f"opened from the cache in {opened / built:.2f} of that ({opened:.1f} s)")
        print(f"opened with one changed in {changed / built:.2f} of that")
        print(f"one look-up: {looked / LOOKUPS * 1000:.3f} ms")


if __name__ == "__main__":
    main()
