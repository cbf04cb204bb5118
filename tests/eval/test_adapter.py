"""The lmms-eval model on lmms-eval's own requests: what is shown, what is refused, and that batches change nothing."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lmms_eval.api.model import lmms
from PIL import Image

from ov_model.errors import OvError, UsageError
from ov_model.eval.adapter import MissingAssets, OneVisionCodec
from ov_model.eval.questions import UnsupportedVisual
from ov_model.geometry import Geometry
from tests.eval.assets import SMALL, damage_inside, video, write_asset
from tests.eval.models import GREEDY, choices, requests, tiny_checkpoint
from tests.factories import picture

VIDEOS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and a home with the videos and assets of the task `bench`."""
    folder = tmp_path_factory.mktemp("made")
    tiny_checkpoint(folder / "checkpoint")
    for number in range(VIDEOS):
        clip = video(folder / "home" / "bench_video" / f"clip{number}.mp4", seed=number)
        write_asset(folder / "home" / "bench_offline" / "assets", clip.stem, clip)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A home of its own, with links to the checkpoint."""
    shutil.copytree(made / "home", tmp_path / "home")
    (tmp_path / "checkpoint").symlink_to(made / "checkpoint")
    return tmp_path


def adapter(place: Path, **arguments: Any) -> OneVisionCodec:
    given = {"device": "cpu", "home": place / "home", "report": place / "report.json", **arguments}
    return OneVisionCodec(str(place / "checkpoint"), **given)


def report(place: Path) -> dict[str, Any]:
    return json.loads((place / "report.json").read_text())


def clips(place: Path) -> list[dict[str, Any]]:
    """Documents about the videos, of different lengths."""
    folder = place / "home" / "bench_video"
    return [
        {"visual": [str(folder / f"clip{number}.mp4")], "question": "What moves? " + "Look. " * number}
        for number in range(VIDEOS)
    ]


def mixed(place: Path) -> list[dict[str, Any]]:
    """Videos, pictures of several sizes, and text alone."""
    one, two = Image.fromarray(picture("still", 0, 90, 50)), Image.fromarray(picture("noise", 0, 40, 70))
    return [
        *clips(place),
        {"visual": [one], "question": "What is it?"},
        {"visual": [one, two], "question": "Which is larger?"},
        {"visual": None, "question": "Say a word."},
        {"visual": [], "question": "Another."},
    ]


def test_a_batch_answers_as_each_question_alone_in_the_order_asked(made: Path, tmp_path: Path) -> None:
    place = made
    alone = adapter(place, index_cache=tmp_path / "index")
    answers = alone.generate_until(requests(alone, mixed(place)))
    batched = adapter(place, batch_size=3, index_cache=tmp_path / "index")
    assert batched.generate_until(requests(batched, mixed(place))) == answers
    assert len(set(answers)) > len(answers) / 2
    found = report(place)
    assert found["total"] | {"docs": 8, "hit": 4, "miss": 0, "invalid": 0, "images": 2, "text": 2} == found["total"]
    assert found["finished"]
    assert found["signals"] == {"residual": 4}
    assert found["visual_tokens"] == 32 * 4 / 8 + 16 * 3 / 8


def test_what_is_shown_changes_the_answer(made: Path) -> None:
    lm = adapter(made)
    asked = [dict(document, question="What moves?") for document in clips(made)]
    assert len(set(lm.generate_until(requests(lm, asked)))) > 1


@pytest.mark.parametrize("damage", ["mosaic", "asset", "content", "options"])
def test_any_missing_or_invalid_asset_stops_the_run_before_the_first_generation(place: Path, damage: str) -> None:
    asset = place / "home" / "bench_offline" / "assets" / "clip2"
    if damage == "mosaic":
        (asset / "mosaic_001.jpg").unlink()
    elif damage == "asset":
        shutil.rmtree(asset)
    elif damage == "content":
        video(place / "home" / "bench_video" / "clip2.mp4", seed=99)
    else:
        meta = json.loads((asset / "meta.json").read_text())
        (asset / "meta.json").write_text(json.dumps({**meta, "cfg": {**meta["cfg"], "mv_pct": 90.0}}))
    lm = adapter(place)
    with pytest.raises(MissingAssets) as caught:
        lm.generate_until(requests(lm, clips(place)))
    status = "miss" if damage in ("mosaic", "asset") else "invalid"
    message = str(caught.value)
    assert f"1 of 4 videos cannot be shown (1 {status}); nothing was generated" in message
    assert f"bench clip2: {status}" in message
    offline = place / "home" / "bench_offline"
    options = "--seq_len_frames 8 --num_images 2 --square_size 64"
    assert f"ov precompute --jsonl {offline}/bench_videos.jsonl --out_root {offline} {options}" in message
    assert str(offline / "assets") in message
    assert getattr(lm, "_model", None) is None


def test_with_the_fallback_a_missing_asset_is_shown_as_frames_and_counted(place: Path) -> None:
    shutil.rmtree(place / "home" / "bench_offline" / "assets" / "clip2")
    lm = adapter(place, fallback="frames", batch_size=2)
    answers = lm.generate_until(requests(lm, clips(place)))
    found = report(place)
    assert found["total"] | {"hit": 3, "miss": 1, "frames": 1, "docs": 4} == found["total"]
    assert [one["key"] for one in found["missing"]] == ["clip2"]
    plain = adapter(place, visual="frames")
    assert plain.generate_until(requests(plain, clips(place)))[2] == answers[2]
    assert report(place)["total"] | {"hit": 0, "miss": 0, "frames": 4} == report(place)["total"]


def test_a_damaged_mosaic_is_found_before_the_first_generation_by_its_hash(place: Path) -> None:
    damage_inside(place / "home" / "bench_offline" / "assets" / "clip1" / "mosaic_000.jpg")
    lm = adapter(place)
    with pytest.raises(MissingAssets, match=r"clip1: invalid: .*not those that were written"):
        lm.generate_until(requests(lm, clips(place)))
    assert getattr(lm, "_model", None) is None


def test_a_damaged_mosaic_without_a_hash_counts_as_invalid_when_it_is_read(place: Path) -> None:
    asset = place / "home" / "bench_offline" / "assets" / "clip1"
    damage_inside(asset / "mosaic_000.jpg")
    meta = json.loads((asset / "meta.json").read_text())
    (asset / "meta.json").write_text(json.dumps({**meta, "output_hash": ""}))
    lm = adapter(place)
    with pytest.raises(MissingAssets, match=r"clip1: invalid: .*does not decode"):
        lm.generate_until(requests(lm, clips(place)))
    lm = adapter(place, fallback="frames")
    assert len(lm.generate_until(requests(lm, clips(place)))) == 4
    assert report(place)["total"] | {"hit": 3, "invalid": 1, "frames": 1} == report(place)["total"]


def test_a_video_that_is_not_there_stops_the_run_whatever_the_fallback(place: Path) -> None:
    asked = [*clips(place), {"visual": [str(place / "gone.mp4")]}, {"visual": SystemExit("video path:x is not there")}]
    for arguments in ({}, {"fallback": "frames"}, {"visual": "frames"}):
        lm = adapter(place, **arguments)
        with pytest.raises(MissingAssets) as caught:
            lm.generate_until(requests(lm, asked))
        assert "2 of 6 videos cannot be shown (2 unreadable)" in str(caught.value)
        assert "document 5: unreadable: video path:x is not there" in str(caught.value)
        assert "ov benchmark prepare bench" in str(caught.value)


def test_an_empty_root_says_so(place: Path) -> None:
    empty = place / "empty" / "assets"
    empty.mkdir(parents=True)
    lm = adapter(place, offline_root=str(empty))
    with pytest.raises(MissingAssets, match=rf"(?s)4 of 4 videos .*Looked in: {empty} \(0 assets, 0 faulty\)"):
        lm.generate_until(requests(lm, clips(place)))


def test_a_benchmark_without_a_root_says_where_it_looked(place: Path) -> None:
    lm = adapter(place)
    with pytest.raises(MissingAssets, match=r"other_offline/assets \(not there\)"):
        lm.generate_until(requests(lm, clips(place), task="other"))


def test_roots_of_the_variable_are_split(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place / "home" / "bench_offline" / "assets"
    second = place / "second" / "assets"
    second.mkdir(parents=True)
    shutil.move(root / "clip3", second / "clip3")
    monkeypatch.setenv("LLAVA_CODEC_OFFLINE_ROOT", f"{root}:{second}")
    lm = adapter(place)
    lm.generate_until(requests(lm, clips(place)))
    assert [one["root"] for one in report(place)["roots"]] == [str(root), str(second)]
    assert report(place)["total"]["hit"] == 4


def test_use_offline_off_means_frames_and_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLAVA_CODEC_USE_OFFLINE", "0")
    with caplog.at_level(logging.WARNING):
        assert adapter(place).options.visual == "frames"
    assert "shown as plain frames" in caplog.text
    assert adapter(place, visual="codec").options.visual == "codec"
    with pytest.raises(UsageError, match="contradict"):
        adapter(place, visual="codec", use_offline="false")


def test_debug_logs_a_line_for_every_video(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLAVA_CODEC_DEBUG", "1")
    lm = adapter(made)
    with caplog.at_level(logging.INFO):
        lm.generate_until(requests(lm, clips(made)[:2]))
    assert [line for line in caplog.messages if line.startswith("HIT bench clip")] == [
        f"HIT bench clip{number} {made}/home/bench_offline/assets/clip{number}" for number in range(2)
    ]


def test_a_video_among_pictures_is_looked_up_when_it_comes(place: Path) -> None:
    still = Image.fromarray(picture("still", 0, 60, 60))
    asked = [{"visual": [still]}, *clips(place)[:2]]
    lm = adapter(place)
    assert len(lm.generate_until(requests(lm, asked))) == 3
    assert report(place)["total"] | {"images": 1, "hit": 2} == report(place)["total"]
    shutil.rmtree(place / "home" / "bench_offline" / "assets" / "clip1")
    lm = adapter(place)
    with pytest.raises(MissingAssets, match="clip1: miss"):
        lm.generate_until(requests(lm, asked))


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ([{"array": np.zeros(8), "sampling_rate": 16000}], "document 0 shows audio"),
        (["a.mp4", "b.mp4"], "2 videos and 0 pictures"),
        ([np.zeros((4, 4, 3))], "shows ndarray"),
        (["nowhere.jpg"], "nowhere.jpg is not a picture that can be read"),
    ],
)
def test_what_the_model_cannot_read_is_refused_by_name(made: Path, shown: Any, message: str) -> None:
    lm = adapter(made)
    with pytest.raises(UnsupportedVisual, match=message):
        lm.generate_until(requests(lm, [{"visual": shown}]))


def test_paths_of_pictures_are_read_as_pictures(made: Path, tmp_path: Path) -> None:
    still = Image.fromarray(picture("still", 0, 60, 60))
    still.save(tmp_path / "still.png")
    lm = adapter(made)
    by_path, by_picture = lm.generate_until(requests(lm, [{"visual": str(tmp_path / "still.png")}, {"visual": still}]))
    assert by_path == by_picture


def test_until_ends_an_answer(made: Path) -> None:
    lm = adapter(made)
    asked = clips(made)
    whole = lm.generate_until(requests(lm, asked, options={**GREEDY, "max_new_tokens": 12}))
    stop = whole[0][3:5]
    options = {**GREEDY, "max_new_tokens": 12, "until": stop}
    for batch_size in (1, 4):
        lm = adapter(made, batch_size=batch_size)
        found = lm.generate_until(requests(lm, asked, options=options))
        assert found == [text.split(stop)[0].strip() for text in whole]
    listed = lm.generate_until(requests(lm, asked, options={**options, "until": ["\n\n", stop]}))
    assert listed == found


def test_until_saves_the_tokens_after_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = adapter(made)
    text = lm.generate_until(requests(lm, clips(made)[:1], options={**GREEDY, "max_new_tokens": 8}))[0]
    calls: list[int] = []
    model, forward = lm.model, lm.model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1])
    options = {"max_new_tokens": 400, "until": [text[:3]]}
    assert lm.generate_until(requests(lm, clips(made)[:1], options=options)) == [""]
    assert len(calls) <= 4


def test_options_that_cannot_be_honored_are_named_once(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    lm = adapter(made)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            lm.generate_until(requests(lm, clips(made)[:2], options={**GREEDY, "use_magic": 1}))
    assert len([line for line in caplog.messages if "use_magic cannot be honored" in line]) == 1


def test_beams_are_honored(made: Path) -> None:
    lm = adapter(made, batch_size=4)
    greedy = lm.generate_until(requests(lm, clips(made)))
    assert len(lm.generate_until(requests(lm, clips(made), options={**GREEDY, "num_beams": 3}))) == len(greedy)


def test_samples_depend_on_the_question_and_its_repetition_alone(made: Path) -> None:
    options = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.0}
    one = adapter(made, batch_size=3)
    first = one.generate_until(requests(one, clips(made), options=options, repeats=2))
    torch.rand(7)
    two = adapter(made)
    asked = requests(two, clips(made), options=options, repeats=2)
    assert two.generate_until(asked[::-1]) != first[::-1] or len(set(first)) == len(first)
    assert two.generate_until(asked) == first
    assert first[0] != first[1]
    assert len(set(first)) > VIDEOS


def test_greedy_repetitions_are_answered_once(made: Path) -> None:
    lm = adapter(made)
    answers = lm.generate_until(requests(lm, clips(made), repeats=3))
    assert answers[::3] == answers[1::3] == answers[2::3]
    assert report(made)["answers"] == VIDEOS


def test_likelihoods_are_those_of_the_answer_alone_and_together(made: Path) -> None:
    document = {**clips(made)[1], "question": "Pick one."}
    answers = ["red", "a ball", "rolls", ""]
    single, batched = adapter(made), adapter(made, batch_size=4)
    found = batched.loglikelihood(choices(batched, document, answers))
    expected = single.loglikelihood(choices(single, document, answers))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-3)
    assert found[3] == (0.0, True)
    said = single.generate_until(requests(single, [document], options={**GREEDY, "max_new_tokens": 1}))[0]
    ((value, greedy),) = single.loglikelihood(choices(single, document, [said]))
    assert greedy
    assert value >= max(value for value, _ in found[:3])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_journal_answers_again_and_a_batch_answered_in_part_is_asked_whole(
    made: Path, tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "answers.jsonl"
    first = adapter(made, journal=journal, batch_size=batch_size)
    answers = first.generate_until(requests(first, mixed(made)))
    again = adapter(made, journal=journal, batch_size=batch_size)
    monkeypatch.setattr("ov_model.eval.adapter.generate", lambda *_: pytest.fail("asked again"))
    assert again.generate_until(requests(again, mixed(made))) == answers
    assert report(made)["reused"] == len(answers)
    monkeypatch.undo()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]))
    resumed = adapter(made, journal=journal, batch_size=batch_size)
    assert resumed.generate_until(requests(resumed, mixed(made))) == answers
    assert report(made)["reused"] == (4 if batch_size == 1 else 3)


def test_a_journals_answer_to_another_asset_picture_or_question_is_not_taken(place: Path) -> None:
    journal = place / "answers.jsonl"
    asked = mixed(place)
    first = adapter(place, journal=journal)
    first.generate_until(requests(first, asked))
    other = video(place / "other.mp4", seed=77)
    target = Path(asked[0]["visual"][0])
    shutil.copy(other, target)
    write_asset(place / "home" / "bench_offline" / "assets", "clip0", target)
    asked[1]["question"] = "Something else?"
    asked[4]["visual"] = [Image.fromarray(picture("noise", 3, 90, 50))]
    again = adapter(place, journal=journal)
    again.generate_until(requests(again, asked))
    assert report(place)["reused"] == len(asked) - 3
    once_more = adapter(place, journal=journal, max_length=4000)
    once_more.generate_until(requests(once_more, asked))
    assert report(place)["reused"] == 0


def test_a_long_context_is_cut_and_counted_in_a_run(made: Path) -> None:
    lm = adapter(made, max_length=150)
    asked = [dict(document, question="word " * 300) for document in clips(made)]
    assert all(lm.generate_until(requests(lm, asked)))
    assert report(made)["cut"] == VIDEOS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer_config.json", "has no tokenizer_config.json; .*AutoTokenizer"),
        ("preprocessor_config.json", "has no preprocessor_config.json; .*train.export.processor"),
        ("model.safetensors", "has no model.safetensors; a projector stage's"),
    ],
)
def test_a_checkpoint_that_lacks_a_file_names_it_and_what_makes_it(
    made: Path, tmp_path: Path, name: str, message: str
) -> None:
    folder = shutil.copytree(made / "checkpoint", tmp_path / "checkpoint")
    (folder / name).unlink()
    with pytest.raises(UsageError, match=message):
        OneVisionCodec(str(folder), device="cpu")


def test_a_checkpoint_of_another_normalization_is_refused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "checkpoint", tmp_path / "checkpoint")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(UsageError, match=r"image_mean is \[0.5, 0.5, 0.5\]"):
        OneVisionCodec(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nonsense": 1}, "no argument nonsense"),
        ({"batch_size": "auto"}, "batch_size is 'auto'"),
        ({"fallback": "images"}, "fallback is 'images'; use none or frames"),
        ({"visual": "audio"}, "visual is 'audio'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"geometry": Geometry()}, "geometry.sequence_length is 64"),
    ],
)
def test_arguments_that_cannot_be_honored_are_refused(made: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        adapter(made, **arguments)


def test_a_model_of_the_callers_survives_cleaning(made: Path) -> None:
    source = adapter(made)
    model = source.model
    lm = OneVisionCodec(
        model=model, tokenizer=source.tokenizer, geometry=SMALL, device="cpu", home=made / "home"
    )  # fmt: skip
    assert isinstance(lm, lmms)
    before = lm.generate_until(requests(lm, clips(made)))
    lm.clean()
    assert lm.generate_until(requests(lm, clips(made))) == before
    source.clean()
    assert getattr(source, "_model", None) is None
    assert source.generate_until(requests(source, clips(made))) == before
    with pytest.raises(UsageError, match="needs its tokenizer"):
        OneVisionCodec(model=model, device="cpu")


def test_arguments_come_as_text_through_lmms_evals_own_parser(made: Path) -> None:
    arguments = f"pretrained={made}/checkpoint,accept_unhashed=true,fallback=frames,home={made}/home,dtype=float32"
    lm = OneVisionCodec.create_from_arg_string(arguments, {"batch_size": "2", "max_batch_size": None, "device": "cpu"})
    assert (lm.batch_size, lm.options.accept_unhashed, lm.options.fallback) == (2, True, "frames")
    assert len(lm.generate_until(requests(lm, clips(made)))) == VIDEOS


def test_rounds_are_not_answered(made: Path) -> None:
    with pytest.raises(NotImplementedError, match="answers in one round"):
        adapter(made).generate_until_multi_round([])


def test_a_tasks_own_failure_names_the_document(made: Path) -> None:
    lm = adapter(made)
    asked = requests(lm, [{"visual": []}])
    arguments = list(asked[0].arguments)
    arguments[2] = lambda document: document["nothing"]
    asked[0].arguments = tuple(arguments)
    with pytest.raises(OvError, match=r"bench document 0: .*nothing"):
        lm.generate_until(asked)
