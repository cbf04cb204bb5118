"""How long the samples are, in text + visual tokens: what sampling needs, and a report of what would be cut.

python -m ov_model.train.lengths RECIPE DATA.jsonl --tokenizer FOLDER --png lengths.png
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Dataset

from ov_model.errors import SampleError, UsageError, reason_codes
from ov_model.lake.files import hash_json, read_array, write_array, write_bytes, write_json
from ov_model.train.data import JsonlDataset
from ov_model.train.recipe import DataRecipe, load_recipe


@dataclass(frozen=True, eq=False)
class Lengths:
    """Of every row: length_N int64, text + visual tokens after cutting; cut_N int64, tokens cut off.

    Args:
        bad: row -> (reason, detail) of rows that cannot be used; their length is 0.
    """

    length_N: NDArray[np.int64]
    cut_N: NDArray[np.int64]
    bad: dict[int, tuple[str, str]]

    def usable_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that can be used, ascending."""
        return np.setdiff1d(np.arange(len(self.length_N)), np.array(sorted(self.bad), dtype=np.int64))


@dataclass(frozen=True)
class LengthReport:
    """Lengths of a data set before cutting.

    Args:
        truncated: samples longer than max_length that lose text at their end.
        bad: rows that cannot be used, by reason; `too_long` are those whose visual block alone does not fit.
        edges, counts: histogram; bin i is edges[i] <= length < edges[i+1].
    """

    samples: int
    p50: int
    p99: int
    max: int
    tokens: int
    max_length: int
    truncated: int
    tokens_cut: int
    bad: dict[str, int]
    edges: list[int]
    counts: list[int]


class _Measured(Dataset[tuple[int, int, str, str]]):
    def __init__(self, dataset: JsonlDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, int, str, str]:
        try:
            return *self.dataset.measure(row), "", ""
        except SampleError as error:
            return 0, 0, error.reason, str(error)


def measure_lengths(dataset: JsonlDataset, *, cache: Path | None = None, workers: int = 0) -> Lengths:
    """Lengths of all rows, without decoding a picture; kept in `cache` for the same rows, recipe and tokenizer.

    Raises:
        SampleError: the first row that cannot be used, unless the recipe says to skip.
    """
    lengths = _read_cache(dataset, cache)
    if lengths is None:
        count = len(dataset)
        length_N, cut_N = np.zeros(count, np.int64), np.zeros(count, np.int64)
        bad: dict[int, tuple[str, str]] = {}
        workers = workers if count > 20_000 else 0
        context = "spawn" if workers else None
        loader = DataLoader(
            _Measured(dataset), batch_size=256, num_workers=workers, collate_fn=list, multiprocessing_context=context
        )
        row = 0
        for chunk in loader:
            for length, cut, reason, detail in chunk:
                length_N[row], cut_N[row] = length, cut
                if reason:
                    bad[row] = (reason, detail)
                    if dataset.recipe.on_bad_sample == "raise":
                        _raise(reason, detail)
                row += 1
        lengths = Lengths(length_N, cut_N, bad)
        if cache is not None:
            stem = _cache_stem(dataset, cache)
            write_array(stem.with_suffix(".npy"), np.stack([length_N, cut_N]))
            write_json(stem.with_suffix(".json"), {str(row): fault for row, fault in bad.items()})
    if lengths.bad and dataset.recipe.on_bad_sample == "raise":
        _raise(*next(iter(lengths.bad.values())))
    return lengths


def report_lengths(lengths: Lengths, max_length: int, bins: int = 40) -> LengthReport:
    """Histogram, p50, p99, max, and what is cut at `max_length`. Percentiles are lengths that occur."""
    full_N = (lengths.length_N + lengths.cut_N)[lengths.usable_rows()]
    bad = Counter(reason for reason, _ in lengths.bad.values())
    if not len(full_N):
        return LengthReport(0, 0, 0, 0, 0, max_length, 0, 0, dict(bad), [0, 1], [0])
    p50, p99 = (int(value) for value in np.percentile(full_N, [50, 99], method="higher"))
    low, high = int(full_N.min()), int(full_N.max())
    edges = np.unique(np.linspace(low, high + 1, bins + 1).astype(np.int64))
    counts = np.histogram(full_N, edges)[0]
    cut_N = lengths.cut_N[lengths.usable_rows()]
    return LengthReport(
        samples=len(full_N),
        p50=p50,
        p99=p99,
        max=high,
        tokens=int(full_N.sum()),
        max_length=max_length,
        truncated=int((cut_N > 0).sum()),
        tokens_cut=int(cut_N.sum()),
        bad=dict(bad),
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def draw_lengths(report: LengthReport, width: int = 640, height: int = 320) -> bytes:
    """The histogram as PNG; p50 and p99 are marked, and what lies above max_length is red."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 12, 40, width - 12, height - 28
    low, high = report.edges[0], report.edges[-1]

    def across(length: float) -> float:
        return left + (length - low) / (high - low) * (right - left)

    tallest = max([*report.counts, 1])
    for start, end, count in zip(report.edges, report.edges[1:], report.counts, strict=False):
        color = "#c0392b" if start > report.max_length else "#2e6da4"
        if count:
            tall = max(1.0, count / tallest * (bottom - top))
            draw.rectangle((across(start), bottom - tall, max(across(start), across(end) - 1), bottom), fill=color)
    draw.line((left, bottom, right, bottom), fill="black")
    for name, value in (("p50", report.p50), ("p99", report.p99)):
        draw.line((across(value), top, across(value), bottom), fill="#888888")
        draw.text((across(value) + 2, top - 12), name, fill="#555555")
    bad = f", {sum(report.bad.values())} unusable" if report.bad else ""
    title = (
        f"{report.samples:,} samples: p50 {report.p50:,}, p99 {report.p99:,}, max {report.max:,} tokens; "
        f"{report.truncated:,} cut at {report.max_length:,}{bad}"
    )
    draw.text((left, 8), title, fill="black")
    draw.text((left, bottom + 8), f"{low:,}", fill="black")
    label = f"{high - 1:,} tokens"
    draw.text((right - draw.textlength(label), bottom + 8), label, fill="black")
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def token_lengths(
    jsonl: Path, recipe: DataRecipe, tokenizer: Any, *, cache: Path | None = None, workers: int = 0
) -> LengthReport:
    """The report of a training JSONL under a recipe; rows that cannot be used are counted, never raised."""
    counted = replace(recipe, on_bad_sample="skip")
    dataset = JsonlDataset(jsonl, counted, tokenizer, cache=cache)
    return report_lengths(measure_lengths(dataset, cache=cache, workers=workers), recipe.max_length)


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of everything that decides a tokenizer's output."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return hash_json([vocabulary, getattr(tokenizer, "chat_template", None), tokenizer.all_special_tokens])


def _cache_stem(dataset: JsonlDataset, cache: Path) -> Path:
    ignored = {"on_bad_sample", "group_by_length", "workers"}
    recipe = {name: value for name, value in asdict(dataset.recipe).items() if name not in ignored}
    key = [dataset.rows.content_hash, str(dataset.base.absolute()), recipe, tokenizer_hash(dataset.tokenizer)]
    return cache / f"lengths-{hash_json(key)[:16]}"


def _read_cache(dataset: JsonlDataset, cache: Path | None) -> Lengths | None:
    if cache is None:
        return None
    stem = _cache_stem(dataset, cache)
    if not stem.with_suffix(".json").is_file():
        return None
    length_N, cut_N = read_array(stem.with_suffix(".npy"))
    bad = json.loads(stem.with_suffix(".json").read_bytes())
    return Lengths(length_N, cut_N, {int(row): (reason, detail) for row, (reason, detail) in bad.items()})


def _raise(reason: str, detail: str) -> None:
    raise reason_codes().get(reason, SampleError)(detail)


def main() -> None:
    parser = argparse.ArgumentParser(description="Lengths of a training JSONL in tokens.")
    parser.add_argument("recipe", help="a recipe's YAML, or the name of a shipped one")
    parser.add_argument("jsonl", type=Path)
    parser.add_argument("--tokenizer", required=True, help="folder or hub id")
    parser.add_argument("--png", type=Path, help="where the histogram goes")
    options = parser.parse_args()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        report = token_lengths(options.jsonl, load_recipe(options.recipe).data, tokenizer)
    except UsageError as error:
        parser.error(str(error))
    print(json.dumps(asdict(report), indent=2))
    if options.png:
        write_bytes(options.png, draw_lengths(report))


if __name__ == "__main__":
    main()
