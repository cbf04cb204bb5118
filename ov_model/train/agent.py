"""torchrun that ends with whoever started it: `python -m ov_model.train.agent PARENT_PID ERRORS TORCHRUN_ARGUMENTS…`.

The processes that it starts are told to end with it (`--agent`), so that kill -9 of any of them leaves none alive.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ov_model.lake.files import write_json
from ov_model.train.processes import die_with_parent

EXIT_CODES = "exit-codes"


def main() -> None:
    parent, errors, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main([*arguments, "--agent", str(os.getpid())])
    except ChildFailedError as error:
        codes = {str(rank): failure.exitcode for rank, failure in error.failures.items()}
        write_json(Path(errors) / f"{EXIT_CODES}-{os.getpid()}.json", codes)
        sys.exit(1)
    except SignalException as error:
        sys.exit(128 + error.sigval)


if __name__ == "__main__":
    main()
