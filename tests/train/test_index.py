"""Rows of a JSONL by offset."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from ov_model.errors import BadRecord, UsageError
from ov_model.train import index
from ov_model.train.index import JsonlRows
from tests.train.samples import text_row, write_jsonl


def test_rows_by_number_in_any_order(tmp_path: Path) -> None:
    rows = [text_row(number) | {"text": "ü" * number} for number in range(9)]
    found = JsonlRows(write_jsonl(tmp_path / "a.jsonl", rows))
    assert len(found) == 9
    assert [found[number] for number in (8, 0, 4)] == [rows[8], rows[0], rows[4]]
    assert pickle.loads(pickle.dumps(found))[3] == rows[3]


def test_blank_lines_and_a_missing_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n\n{"id": 2}')
    assert [JsonlRows(path)[number]["id"] for number in range(2)] == [1, 2]


@pytest.mark.parametrize("line", ["{broken", "[1]"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"id": 1}}\n{line}\n')
    with pytest.raises(BadRecord, match="row 1"):
        JsonlRows(path)[1]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        JsonlRows(tmp_path / "a.jsonl")


def test_cache_is_used_while_the_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [text_row(0), text_row(1)])
    JsonlRows(path, tmp_path / "cache")
    read = []
    monkeypatch.setattr(index, "line_spans", lambda path: read.append(path))
    os.utime(path)
    assert JsonlRows(path, tmp_path / "cache")[1] == text_row(1)
    assert read == []


def test_cache_does_not_outlive_a_change(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [text_row(0), text_row(1)])
    before = JsonlRows(path, tmp_path / "cache")
    same_size = path.read_text().replace("text-0", "TEXT-0")
    path.write_text(same_size)
    after = JsonlRows(path, tmp_path / "cache")
    assert after.content_hash != before.content_hash
    assert after[0]["id"] == "TEXT-0"
    path.write_text(json.dumps(text_row(5)) + "\n" + same_size)
    assert [JsonlRows(path, tmp_path / "cache")[number]["id"] for number in range(3)] == ["text-5", "TEXT-0", "text-1"]
