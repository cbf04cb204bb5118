"""The leaderboard as an asset: all scores of the project in one table, as Markdown, CSV, Parquet and over time."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from ov_assets.components.benchmark_set import BenchmarkSet
from ov_assets.components.step import StepAsset
from ov_assets.environment import lake_root
from ov_assets.inputs import described
from ov_assets.metadata import Product
from ov_assets.previews import BUDGET_BYTES, plot
from ov_model.eval.leaderboard import CSV, MEASURED, PARQUET, PLAIN, PLOT, as_table, read_scores, write_board
from ov_model.lake.files import hash_json
from ov_model.plots import smaller_png

LEADERBOARD = dg.AssetKey(["leaderboard"])
LEADERBOARD_VERSION = 1
_VOLATILE = ("started_at", "run", "source")
_TEXT = (
    "Checkpoints against benchmarks, published figures beside them and marked as such; a score that rests on a video "
    "without its codec asset is marked."
)
_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("checkpoint", "str", "run, external checkpoint or publication"),
        dg.TableColumn("kind", "str", "measured, measured on plain frames, their difference, or published"),
        dg.TableColumn("benchmark", "str", "short name"),
        dg.TableColumn("percent", "float64", "the headline score"),
    ]
)


def leaderboard(benchmarks: BenchmarkSet, runs: Sequence[str], owners: Sequence[str]) -> StepAsset:
    """The asset over the scores of `runs`."""
    folder = lake_root() / LEADERBOARD.path[-1]
    deps = [dg.AssetKey([run, "scores"]) for run in runs]
    return StepAsset(
        key=LEADERBOARD,
        description=described(_TEXT, deps),
        deps=deps,
        kinds=frozenset({"csv", "parquet"}),
        group=benchmarks.name,
        code_version=str(LEADERBOARD_VERSION),
        columns=_COLUMNS,
        make=lambda context, _: make_leaderboard([lake_root() / run / "scores" for run in runs], folder),
        there=lambda _: (folder / PARQUET).is_file(),
        owners=owners,
    )


def make_leaderboard(roots: Sequence[Path], folder: Path) -> Product:
    """Write the board of all scores below the roots into a folder, and say it."""
    scores = read_scores(roots)
    board = write_board(folder, scores)
    measured = board.filter(pl.col("kind").is_in([MEASURED, PLAIN]))
    metadata = {
        "work": f"{measured.height} scores of {measured['checkpoint'].n_unique()} checkpoints",
        "table": dg.MetadataValue.md(as_table(board).markdown()),
        "scores": measured.height,
        "checkpoints": measured["checkpoint"].n_unique(),
        "MISS": int(measured["miss"].sum()),
        "invalid": int(measured["invalid"].sum()),
        "csv": dg.MetadataValue.path(str(folder / CSV)),
        "parquet": dg.MetadataValue.path(str(folder / PARQUET)),
        "plot": dg.MetadataValue.path(str(folder / PLOT)),
        "dagster/row_count": board.height,
        "dagster/uri": str(folder / PARQUET),
    }
    picture = smaller_png((folder / PLOT).read_bytes())
    if len(picture) < BUDGET_BYTES // 2:
        metadata["over time"] = plot(picture, "scores over time")
    lasting = [name for name in board.columns if name not in _VOLATILE]
    return Product(hash_json(board.select(lasting).rows())[:16], metadata)
