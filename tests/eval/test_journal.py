"""Answers as they come: found again by what was asked, torn lines cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ov_model.eval.journal import Entry, Journal


def entry(**changes: Any) -> Entry:
    fields: dict[str, Any] = {"type": "generate_until", "task": "t", "doc_id": 1, "idx": 0, "repeat": 0}
    return Entry(**{**fields, "prompt_hash": "p", "visual_hash": "v", "answer": "A", **changes})


def test_a_journal_gives_back_what_was_asked_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    journal.append([entry(), entry(prompt_hash="other", answer="B")])
    journal.append([entry(answer="newer")])
    journal.close()
    again = Journal(path, rank=0, world=2)
    found = again.find(entry().key, "p")
    assert found is not None
    assert found.answer == "newer"
    assert again.find(entry().key, "another") is None
    assert again.path.name == "answers.rank0.jsonl"


def test_a_torn_line_is_cut_off_and_a_foreign_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    journal.append([entry()])
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"foreign": 1}\n{"type": "gen')
    again = Journal(path)
    again.append([entry(doc_id=2)])
    again.close()
    assert [json.loads(line).get("doc_id") for line in path.read_text().splitlines()] == [1, None, 2]
    assert Journal(path).find(entry(doc_id=2).key, "p") is not None
