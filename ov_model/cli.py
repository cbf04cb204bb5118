"""`ov`: argument parsing only. Option names are the reference's; underscores and hyphens are both accepted.

Exit codes: 0 all ok, 3 some samples failed, 1 nothing usable or an error, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from rich.table import Table

from ov_model import __version__, cli_ops
from ov_model.errors import OvError, UsageError
from ov_model.eval.prepare import PrepareOptions
from ov_model.geometry import Geometry
from ov_model.lake.layout import safe_name
from ov_model.lake.ledger import FAILED, Report, read_ledger
from ov_model.precompute import PrecomputeConfig
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from ov_model.terminal import console, print_json

_SHOWN_FAILURES = 3
_COMPLETION = "--install-completion"

DATA = Group.create_ordered("Make data")
LOOK = Group.create_ordered("Look at it")
MODELS = Group.create_ordered("Train and score")
THIS = Group.create_ordered("About this command")

app = App(
    name="ov",
    help="Codec-based video language models: chosen patches, mosaics and training data from raw video.",
    help_epilogue=(
        "Exit codes: 0 all ok, 1 nothing usable or an error, 2 usage, 3 some samples failed, 130 interrupted. Run the "
        "same command again to go on where it stopped. --debug shows the traceback of an error."
    ),
    version=__version__,
    suppress_keyboard_interrupt=False,
    group_commands=THIS,
    default_parameter=Parameter(name_transform=lambda name: name, negative_bool="no-", negative_iterable=()),
)

cli_ops.register(app)


@app.command(group=DATA)
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


@app.command(group=DATA)
def stage2(*, config: Annotated[Stage2Config, Parameter(name="*")]) -> int:
    """Pack the chosen patches into mosaics and write the training JSONL."""
    from ov_model.stage2 import run

    report, summary = run(config)
    print_report(report)
    left_out = ", ".join(f"{count} {reason}" for reason, count in summary.left_out.items()) or "none"
    console().print(f"{summary.rows} rows in {summary.path} (left out: {left_out})")
    return report.exit_code


@app.command(group=DATA)
def precompute(*, config: Annotated[PrecomputeConfig, Parameter(name="*")]) -> int:
    """Make the offline codec assets of a benchmark's videos."""
    from ov_model.precompute import run

    report = run(config)
    print_report(report)
    return report.exit_code


@app.command(group=DATA)
def validate(
    jsonl: Path,
    /,
    *,
    image_root: Path | None = None,
    remap: tuple[str, ...] = (),
    visidx_root: Path | None = None,
    first_full: bool | None = None,
    T: int | None = None,
    num_images: int = Geometry.num_images,
    square_size: int = Geometry.square_size,
    patch: int = Geometry.patch_size,
    any_quality: bool = False,
    unique_rows: bool | None = None,
) -> int:
    """Check a training JSONL and every file it names against the published format.

    Parameters
    ----------
    jsonl
        Training JSONL.
    image_root
        Where relative paths start [default: the JSONL's folder or its dataset's].
    remap
        OLD=NEW path prefix, for a JSONL written elsewhere; may be given several times.
    visidx_root
        Stage-1 files to hold the positions against.
    first_full
        Mosaic 0 must be the whole first frame [default: what stage 1 recorded].
    T
        Sampled frames; give it (and the next three) for a geometry that no stage-1 file tells.
    num_images
        Mosaics per video.
    square_size
        Side of a mosaic, pixels.
    patch
        Side of a patch, pixels.
    any_quality
        Accept mosaics of any JPEG quality.
    unique_rows
        Two equal rows are a problem [default: yes, except in a mixture].
    """
    from ov_model.checks import JPEG_QUALITY
    from ov_model.validate import print_validation, validate_jsonl

    pairs = [tuple(pair.split("=", 1)) for pair in remap]
    if any(len(pair) != 2 for pair in pairs):
        raise UsageError(f"--remap {' '.join(remap)}: expected OLD=NEW")
    geometry = Geometry(T, num_images, square_size, patch) if T is not None else None
    found = validate_jsonl(
        jsonl,
        image_root=image_root,
        remap=[(old, new) for old, new in pairs],
        geometry=geometry,
        first_full=first_full,
        visidx_root=visidx_root,
        unique_rows=unique_rows,
        jpeg_quality=None if any_quality else JPEG_QUALITY,
    )
    print_validation(found)
    return found.exit_code


@app.command(group=LOOK)
def doctor(*, lake: Path | None = None, json: bool = False) -> int:
    """Say what this installation can do, and prove each signal on small clips with known motion.

    Parameters
    ----------
    lake
        Folder that outputs will go to [default: the current folder].
    json
        Print JSON instead of a table.
    """
    from ov_model import doctor

    home = os.environ.get("DAGSTER_HOME")
    findings = [*doctor.diagnose(lake=lake, dagster_home=Path(home) if home else None), *doctor.proofs()]
    if json:
        print_json(doctor.as_dicts(findings))
    else:
        doctor.print_findings(findings, console())
    return doctor.exit_code(findings)


@app.command(group=LOOK)
def status(lake: Path, /, *, json: bool = False) -> None:
    """Say how far each dataset, stage and shard is.

    Parameters
    ----------
    lake
        A lake, one dataset of it, or the output folder of stage 1, stage 2 or precompute.
    json
        Print JSON instead of a table.
    """
    from ov_model import status

    rows = status.status(lake)
    if json:
        print_json(status.as_dicts(rows))
    else:
        status.print_status(rows, console())


@app.command(group=LOOK)
def failures(
    lake: Path,
    /,
    *,
    reason: str | None = None,
    dataset: str | None = None,
    stage: str | None = None,
    every_stage: bool = False,
    limit: int = 100,
    json: bool = False,
) -> None:
    """List the samples that failed, and why.

    Parameters
    ----------
    lake
        A lake, one dataset of it, or the output folder of stage 1, stage 2 or precompute.
    reason
        Only this reason code.
    dataset
        Only this dataset.
    stage
        Only this stage.
    every_stage
        Also the later stages that a failure reached [default: where it first happened].
    limit
        Rows shown in the table.
    json
        Print all of them as JSON instead.
    """
    from ov_model import status

    frame = status.failures(lake, reason=reason, dataset=dataset, stage=stage, every_stage=every_stage)
    if json:
        print_json(frame.to_dicts())
    else:
        status.print_failures(frame, limit=limit, console=console())


@app.command(group=LOOK)
def show(
    sample: str,
    out: Path | None = None,
    /,
    *,
    lake: Path | None = None,
    media_root: Path | None = None,
    mosaics: Path | None = None,
) -> None:
    """Draw a sample: its frames with the chosen patches outlined, its mosaics beside them.

    Parameters
    ----------
    sample
        A stage-1 file, or with --lake an id or a key `media|id|row`.
    out
        Picture to write [default: {sample}.png in the current folder].
    lake
        A lake, one dataset of it, or the output folder of stage 1.
    media_root
        Folder that the video's path starts from.
    mosaics
        Folder of the mosaics, when it is not found by itself.
    """
    from ov_model.show import print_shown, show_sample

    picture = out or Path(f"{safe_name(Path(sample).name)}.png")
    print_shown(show_sample(sample, picture, lake=lake, media_root=media_root, mosaics=mosaics), picture)


@app.command(group=LOOK)
def report(
    lake: Path,
    /,
    *,
    out: Path = Path("report.html"),
    samples: int = 3,
    at_most: int = 24,
    failures: int = 20,
) -> None:
    """Write one HTML page about a lake: samples, failures, speed and scores, readable anywhere.

    Parameters
    ----------
    lake
        A lake, one dataset of it, or the output folder of stage 1, stage 2 or precompute.
    out
        Page to write; it needs no other file and no network.
    samples
        Pictures of each dataset and signal.
    at_most
        Pictures in all.
    failures
        Failed samples listed of each dataset and reason.
    """
    from ov_model.report.page import ReportOptions, write_report

    size = write_report(lake, out, ReportOptions(samples=samples, at_most=at_most, failures=failures))
    console().print(f"{out} ({size / 1e6:.1f} MB)", soft_wrap=True, highlight=False, markup=False)


@app.command(group=MODELS)
def train(
    recipe: str,
    /,
    *,
    data: Path,
    out: Path,
    nproc: int | None = None,
    nnodes: int = 1,
    node_rank: int = 0,
    master: str | None = None,
    set: tuple[str, ...] = (),  # noqa: A002
    fresh: bool = False,
) -> int:
    """Train a recipe on a training JSONL, going on from the last checkpoint, and export what `from_pretrained` loads.

    Parameters
    ----------
    recipe
        A recipe's YAML file, or tiny, pretrain or sft.
    data
        Training JSONL.
    out
        Folder of the run: checkpoints, metrics.jsonl, tensorboard, and export at the end.
    nproc
        Processes on this machine [default: one for each GPU, else one].
    nnodes
        Machines; run the same command on each.
    node_rank
        This machine's number, from 0.
    master
        HOST:PORT of machine 0.
    set
        A field of the recipe, such as optim.max_steps=100; may be given several times.
    fresh
        Remove what the folder holds of an earlier run.
    """
    from ov_model.train.launch import Nodes, default_processes, launch
    from ov_model.train.recipe import load_recipe

    nodes = Nodes(default_processes() if nproc is None else nproc, nnodes, node_rank, master)
    export = launch(load_recipe(recipe, set), data, out, nodes, fresh=fresh)
    console().print(str(export), soft_wrap=True)
    return 0


@app.command(name="eval", group=MODELS)
def eval_(
    *,
    checkpoint: str,
    tasks: str,
    home: Path | None = None,
    out: Path | None = None,
    name: str | None = None,
    revision: str | None = None,
    visual: Literal["codec", "frames"] = "codec",
    offline_root: tuple[Path, ...] = (),
    fallback: Literal["none", "frames"] = "none",
    accept_unhashed: bool = False,
    batch_size: int = 1,
    num_processes: int = 1,
    precision: Literal["auto", "bf16", "float32"] = "auto",
    device: str | None = None,
    limit: int | None = None,
    rerun: bool = False,
    require_signal: bool = False,
) -> int:
    """Score a checkpoint on benchmarks with lmms-eval; a finished run is found again, an unfinished one goes on.

    Parameters
    ----------
    checkpoint
        Folder that `from_pretrained` loads (RUN/export), or a hub repository.
    tasks
        Comma-separated: benchmarks by short or lmms-eval name, or any other task of lmms-eval.
    home
        Where the benchmarks were prepared [default: $HF_HOME, else .huggingface_cache].
    out
        Folder for this checkpoint's scores [default: scores/NAME].
    name
        What tables call the checkpoint [default: from its path].
    revision
        Of a hub repository.
    visual
        What a video is shown as: mosaics of chosen patches, or plain frames.
    offline_root
        Folder of codec assets; may be given several times [default: found below home by the tasks' names].
    fallback
        What is scored of a video without its asset: nothing at all begins, or plain frames, counted as MISS.
    accept_unhashed
        Take assets that do not say which video they were made from, as the reference's tool writes them.
    batch_size
        Questions answered together.
    num_processes
        Processes on this machine, one a GPU.
    precision
        auto is bf16 on a GPU, float32 on a CPU.
    device
        Such as cuda:0 or cpu [default: a GPU where there is one].
    limit
        Only the first so many questions of each task.
    rerun
        Score once more what is finished, and compare the answers.
    require_signal
        Refuse when the assets' signals are not those of the training data.
    """
    from ov_model.eval.report import print_scored
    from ov_model.eval.run import EvalConfig, default_name, evaluate

    shown = name or default_name(checkpoint)
    scored = evaluate(
        EvalConfig(
            checkpoint=checkpoint,
            home=home or benchmark_home(),
            out=out or Path("scores") / safe_name(shown),
            tasks=tuple(task.strip() for task in tasks.split(",") if task.strip()),
            name=shown,
            revision=revision,
            visual=visual,
            roots=offline_root,
            fallback=fallback,
            accept_unhashed=accept_unhashed,
            batch_size=batch_size,
            num_processes=num_processes,
            precision=precision,
            device=device,
            limit=limit,
            rerun=rerun,
            require_signal=require_signal,
        )
    )
    print_scored(scored, console())
    return 3 if any(row.miss or row.invalid for one in scored for row in one.rows) else 0


@app.command(group=MODELS)
def leaderboard(*scores: Path, out: Path | None = None, json: bool = False) -> None:
    """Show the newest scores of every checkpoint on every benchmark, published figures beside them.

    Parameters
    ----------
    scores
        Folders to look for finished runs in [default: scores].
    out
        Folder to write the table (Markdown, CSV, Parquet) and its plot over time to.
    json
        Print JSON instead of a table.
    """
    from ov_model.eval.leaderboard import as_table, read_scores, write_board
    from ov_model.eval.leaderboard import leaderboard as make
    from ov_model.eval.report import print_board

    found = read_scores(scores or (Path("scores"),))
    if not found.height:
        raise UsageError(f"no finished run below {', '.join(map(str, scores)) or 'scores'}; run ov eval first")
    board = make(found) if out is None else write_board(out, found)
    if json:
        print_json(board.to_dicts())
    else:
        print_board(as_table(board), console())


benchmark = App(
    name="benchmark", group=MODELS, help="The benchmarks: what there is and what lies here; fetch and unpack them."
)
app.command(benchmark)


@benchmark.command(name="list")
def benchmark_list(*, home: Path | None = None, json: bool = False) -> None:
    """List the benchmarks: access, license, published scores, and what of them lies here.

    Parameters
    ----------
    home
        Where benchmarks are prepared [default: $HF_HOME, else .huggingface_cache].
    json
        Print JSON instead of a table.
    """
    from ov_model.eval.commands import list_benchmarks, print_benchmarks

    if json:
        print_json(list_benchmarks(home or benchmark_home()))
    else:
        print_benchmarks(home or benchmark_home(), console())


@benchmark.command(name="prepare")
def benchmark_prepare(
    *names: str,
    home: Path | None = None,
    archives: Literal["keep", "delete"] = "keep",
    revision: str | None = None,
    update: bool = False,
    token_file: Path | None = None,
    retries: int = PrepareOptions.retries,
    timeout: float = PrepareOptions.timeout,
) -> int:
    """Fetch benchmarks from the hub, unpack their videos, and list those that their questions are about.

    Exit code 3: some could not be prepared, or lack videos; 1: none could be prepared.

    Parameters
    ----------
    names
        Benchmarks by short or lmms-eval name, or all: the eight that have no mark of an extra.
    home
        Where to prepare them [default: $HF_HOME, else .huggingface_cache].
    archives
        What becomes of archives once unpacked; deleted ones are not fetched again while their videos lie there.
    revision
        Branch, tag or commit of the data set [default: the benchmark's; pinned to its commit at the first call].
    update
        Look for a newer commit than the pinned one.
    token_file
        File that holds the hub's token [default: $HF_TOKEN, else that of `hf auth login`].
    retries
        Tries after a request that failed.
    timeout
        Seconds that listing one benchmark's videos may take.
    """
    from ov_model.eval.commands import prepare_named

    for noisy in ("httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    options = PrepareOptions(
        archives=archives,
        revision=revision,
        update=update,
        token=token_file.read_text().strip() if token_file else None,
        retries=retries,
        timeout=timeout,
    )
    return prepare_named(names, home or benchmark_home(), options, console())


app.register_install_completion_command(
    name=_COMPLETION, add_to_startup=False, help="Write the completion script of your shell."
)


def benchmark_home() -> Path:
    """lmms-eval's HF_HOME, else the folder that the reference takes."""
    return Path(os.environ.get("HF_HOME") or ".huggingface_cache").expanduser()


def print_report(report: Report) -> None:
    """A stage's Report as a table."""
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
    out = console()
    out.print(table)
    if report.failed and report.ledger is not None:
        failed = read_ledger(report.ledger).filter(status=FAILED)
        for sample_id, reason, detail in failed.head(_SHOWN_FAILURES).select("id", "reason", "detail").iter_rows():
            out.print(f"failed {sample_id}, {reason}: {detail}", soft_wrap=True, markup=False, highlight=False)
        if failed.height > _SHOWN_FAILURES:
            more = failed.height - _SHOWN_FAILURES
            listed = next((path for path in report.outputs if path.suffix == ".txt"), report.ledger)
            out.print(f"and {more} more; all of them: {listed}", soft_wrap=True)
    for path in report.outputs:
        out.print(str(path), soft_wrap=True)


def spell(argv: Sequence[str]) -> list[str]:
    """Options in one spelling: `--keep-first` and `--keep_first` alike, `--no-x` for the negative."""
    spelled = []
    for position, argument in enumerate(argv):
        if argument == "--":
            return spelled + list(argv[position:])
        if argument.startswith("--") and argument != _COMPLETION:
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
    signal.siginterrupt(signal.SIGINT, True)  # polars, when imported, lets system calls begin again after Ctrl-C
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for chatty in ("aiobotocore", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        sys.exit(app(arguments, exit_on_error=False) or 0)
    except CycloptsError:
        sys.exit(2)
    except OvError as error:
        if debug:
            raise
        print(f"ov: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        if debug:
            raise
        print(f"ov: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("ov: interrupted; run the same command again to go on from here", file=sys.stderr)
        sys.stdout.flush()
        os._exit(130)  # threads that still wait for a server are not waited for


if __name__ == "__main__":
    main()
