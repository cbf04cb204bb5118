"""The mixture as an asset: what it reports, refuses and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ov_assets.components import Mixture
from tests.assets.lanes import Playground, checks_of, make_record, metadata, why
from tests.factories import make_image


@pytest.fixture
def mixture(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> Mixture:
    """Of two datasets, `tiny` with 3 text rows and an image, and `other` whose JSONL is written by hand."""
    monkeypatch.setenv("OV_LAKE", str(playground.folder / "lake"))
    make_image(playground.folder / "picture.jpg")
    texts = [make_record(None, id=f"t{i}", kind="text", question=f"Why {i}?") for i in range(3)]
    playground.write([*texts, make_record("picture.jpg", id="i", kind="image")])
    assert all(result.success for result in playground.run_all())
    return Mixture.from_attributes_dict(
        attributes={"datasets": [{"dataset": "tiny", "weight": 2.0}, {"dataset": "other", "count": 3}], "seed": 1}
    )


def other_jsonl(playground: Playground, rows: int = 5) -> None:
    path = playground.folder / "lake" / "other" / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    turns = make_record(None, kind="text")["conversations"]
    path.write_text("".join(json.dumps({"id": f"o{i}", "conversations": turns}) + "\n" for i in range(rows)))


def jsonls(playground: Playground) -> dict[str, Path]:
    return {name: playground.folder / "lake" / name / "train.jsonl" for name in ("tiny", "other")}


def run(playground: Playground, mixture: Mixture, **options: Any) -> dg.ExecuteInProcessResult:
    definitions = mixture.definitions("blend", jsonls(playground))
    return dg.materialize(
        list(definitions.assets or []),  # pyright: ignore[reportArgumentType]
        instance=playground.instance,
        raise_on_error=False,
        **options,
    )


def test_a_mixture_reports_what_it_took_and_passes_its_checks(playground: Playground, mixture: Mixture):
    other_jsonl(playground)
    result = run(playground, mixture)
    assert result.success, why(result)
    told = metadata(result, "mixture", "blend")
    assert told["rows"] == 11
    assert [record.data for record in told["sources"].records] == [
        {"dataset": "tiny", "taken": 8, "of": 4},
        {"dataset": "other", "taken": 3, "of": 5},
    ]
    assert checks_of(result) == dict.fromkeys(
        ("mixture/counts_agree", "mixture/placeholders_match", "mixture/files_exist"), True
    )


def test_a_second_run_writes_nothing(playground: Playground, mixture: Mixture):
    other_jsonl(playground)
    run(playground, mixture)
    assert metadata(run(playground, mixture), "mixture", "blend")["work"] == "0 of 11 rows written"


def test_a_dataset_that_is_not_there_yet_is_refused(playground: Playground, mixture: Mixture):
    result = run(playground, mixture)
    assert "UpstreamError" in why(result)
    assert "materialize other/train_jsonl first" in why(result)


def test_a_missing_image_is_found(playground: Playground, mixture: Mixture):
    other_jsonl(playground)
    (playground.folder / "picture.jpg").unlink()
    result = run(playground, mixture)
    assert not result.success
    assert checks_of(result)["mixture/files_exist"] is False


def test_the_code_version_follows_the_options_and_not_the_place(playground: Playground, mixture: Mixture):
    def version(component: Mixture, folder: str) -> str:
        spec = component.spec("blend", {name: Path(folder) / name for name in ("tiny", "other")})
        return spec.config_hash

    assert version(mixture, "/a") == version(mixture, "/b")
    other = Mixture.from_attributes_dict(attributes={"datasets": [{"dataset": "tiny"}, {"dataset": "other"}]})
    assert version(mixture, "/a") != version(other, "/a")
