"""torchrun that ends with whoever started it: `python -m ov_model.train.agent PARENT_PID TORCHRUN_ARGUMENTS…`.

The processes that it starts are told to end with it (`--agent`), so that kill -9 of any of them leaves none alive.
"""

from __future__ import annotations

import os
import sys

from ov_model.train.processes import die_with_parent


def main() -> None:
    parent, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main([*arguments, "--agent", str(os.getpid())])
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            print(f"rank {rank} (process {failure.pid}) ended with exit code {failure.exitcode}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
