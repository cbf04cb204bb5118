"""One process of an evaluation, for tests that kill it or start several.

python -m tests.eval.worker '{"checkpoint": …, "home": …, "out": …, "die_after": 3}'
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from ov_model.eval.adapter import OneVisionCodec
from tests.eval.models import GREEDY, requests


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    out = Path(job["out"])
    lm = OneVisionCodec(
        job["checkpoint"],
        device="cpu",
        home=job["home"],
        batch_size=job.get("batch_size", 1),
        journal=out / "answers.jsonl",
        report=out / "report.json",
    )
    journal = lm._journal
    assert journal is not None
    append, left = journal.append, job.get("die_after", -1)

    def dying(entries: Any) -> None:
        nonlocal left
        append(entries)
        left -= 1
        if left == 0:
            with open(journal.path, "ab") as stream:
                stream.write(b'{"type": "generate_until", "ta')
            os.kill(os.getpid(), signal.SIGKILL)

    journal.append = dying  # type: ignore[method-assign]
    asked = requests(lm, job["documents"], options=job.get("options", GREEDY))
    mine = asked[lm.rank :: lm.world_size]
    answers = lm.generate_until(mine)
    found = dict(zip([request.doc_id for request in mine], answers, strict=True))
    (out / f"answers.{lm.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
