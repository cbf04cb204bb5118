"""`ov`: argument parsing only. Option names are the reference's; underscores and hyphens are both accepted.

Exit codes: 0 all ok, 3 some samples failed, 1 nothing usable or an error, 2 usage.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from ov_model import __version__
from ov_model.errors import OvError, UsageError
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config

app = App(
    name="ov",
    help="Codec-based video language models: chosen patches, mosaics and training data from raw video.",
    version=__version__,
    default_parameter=Parameter(name_transform=lambda name: name, negative_bool="no-", negative_iterable=()),
)


@app.command
def stage1(*, config: Annotated[Stage1Config, Parameter(name="*")]) -> int:
    """Choose the patches of each video that its codec spent effort on."""
    from ov_model.stage1 import run

    result = run(config)
    if isinstance(result, list):
        for path in result:
            print(path)
        return 0
    print_report(result)
    return result.exit_code


@app.command
def stage2(*, config: Annotated[Stage2Config, Parameter(name="*")]) -> int:
    """Pack the chosen patches into mosaics and write the training JSONL."""
    from ov_model.stage2 import run

    report, summary = run(config)
    print_report(report)
    left_out = ", ".join(f"{count} {reason}" for reason, count in summary.left_out.items()) or "none"
    Console().print(f"{summary.rows} rows in {summary.path} (left out: {left_out})")
    return report.exit_code


def print_report(report: object) -> None:
    """A stage's Report as a table."""
    from ov_model.lake.ledger import Report

    assert isinstance(report, Report)
    table = Table(title=f"{report.stage}", title_justify="left", show_header=False)
    table.add_row("records", str(report.rows))
    table.add_row("ok", str(report.ok))
    for name in ("passed", "skipped", "duplicates"):
        if getattr(report, name):
            table.add_row(name, str(getattr(report, name)))
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.items())
    table.add_row("failed", f"{report.failed}" + (f" ({reasons})" if reasons else ""))
    signals = ", ".join(f"{name} {count}" for name, count in report.signals.items())
    table.add_row("signal", signals or "none")
    table.add_row("computed now", f"{report.computed} media in {report.seconds:.1f} s")
    table.add_row("already done", f"{report.reused} records")
    table.add_row("bytes", f"{report.bytes:,}")
    table.add_row("configuration", report.config_hash)
    table.add_row("ledger", str(report.ledger or "none"))
    Console().print(table)
    for path in report.outputs:
        Console().print(str(path), soft_wrap=True)


def spell(argv: Sequence[str]) -> list[str]:
    """Options in one spelling: `--keep-first` and `--keep_first` alike, `--no-x` for the negative."""
    spelled = []
    for position, argument in enumerate(argv):
        if argument == "--":
            return spelled + list(argv[position:])
        if argument.startswith("--"):
            name, equals, value = argument.removeprefix("--").partition("=")
            negative = name.startswith(("no-", "no_"))
            name = name[3:] if negative else name
            argument = f"--{'no-' if negative else ''}{name.replace('-', '_')}{equals}{value}"
        spelled.append(argument)
    return spelled


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `ov` command."""
    arguments = spell(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        sys.exit(app(arguments) or 0)
    except OvError as error:
        if debug:
            raise
        print(f"ov: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("ov: interrupted; run the same command again to go on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
