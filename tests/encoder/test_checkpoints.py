"""Encoder checkpoints: the published layouts, both ways; what transformers' Auto classes make of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderImageProcessor, OneVisionEncoderModel
from ov_model.vlm.preprocess import normalize, resized
from tests.encoder.layout import LARGE, encoder_shapes, random_tensors
from tests.encoder.models import pixels, relative, small_encoder

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "patch_size": 14}


def saved_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        yield from load_file(path).items()


@pytest.mark.parametrize(("head", "tensors", "values"), [(True, 399, 315_509_760), (False, 387, 302_913_536)])
def test_large_has_the_published_tensors(head: bool, tensors: int, values: int) -> None:
    with torch.device("meta"):
        model = OneVisionEncoderModel(OneVisionEncoderConfig.preset("large", use_head=head))
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == encoder_shapes(LARGE, head=head)
    assert len(found) == tensors
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == values


@pytest.mark.parametrize("said", [True, False, None])
@pytest.mark.parametrize("head", [True, False])
def test_reference_checkpoint_loads_whole_and_is_saved_back_equal(
    tmp_path: Path, head: bool, said: bool | None
) -> None:
    """Whatever its config.json says of the head: the tensors decide."""
    published = random_tensors(encoder_shapes(SMALL, head=head))
    source, copy = tmp_path / "published", tmp_path / "ours"
    source.mkdir()
    save_file(published, source / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "onevision_encoder", "num_attention_heads": 2, **SMALL}
    config |= {} if said is None else {"use_head": said}
    (source / "config.json").write_text(json.dumps(config))

    model, report = OneVisionEncoderModel.from_pretrained(source, output_loading_info=True)
    assert not any(report.values()), report
    assert model.config.use_head is head
    model.save_pretrained(copy)
    with safe_open(copy / "model.safetensors", framework="pt") as ours:
        assert set(ours.keys()) == set(published)
    for name, tensor in saved_tensors(copy):
        assert torch.equal(tensor, published[name]), name


@pytest.mark.parametrize("shard", ["1GB", "200KB"])
def test_round_trip_one_file_or_sharded(tmp_path: Path, shard: str) -> None:
    model, given = small_encoder(), pixels(1, 3, 2, 28, 28)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    files = list(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (shard == "200KB")
    again, report = OneVisionEncoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert {**again.config.to_dict(), "_name_or_path": ""} == model.config.to_dict()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert relative(again.eval()(given).pooler_output, model(given).pooler_output.detach()) <= 1e-6


def test_cast_while_loading_keeps_angles_exact(tmp_path: Path) -> None:
    """from_pretrained builds on the meta device: nothing that is not in the checkpoint may be left there."""
    model: Any = small_encoder()
    given = pixels(1, 3, 28, 28)
    model.save_pretrained(tmp_path)
    half = OneVisionEncoderModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    far = torch.tensor([[[63, 35, 35], [62, 34, 33], [61, 1, 2], [60, 0, 1]]])
    model.to(dtype=torch.bfloat16)
    expected = model(given, patch_positions=far).last_hidden_state
    assert half.dtype == torch.bfloat16
    assert relative(half(given, patch_positions=far).last_hidden_state, expected.detach()) <= 0.01


def test_model_made_on_the_meta_device_works_once_weights_are_assigned() -> None:
    model, given = small_encoder(), pixels(1, 3, 2, 28, 28)
    with torch.device("meta"):
        empty = OneVisionEncoderModel(model.config).eval()
    empty.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(empty(given).last_hidden_state, model(given).last_hidden_state)


def test_auto_classes_know_the_encoder(tmp_path: Path) -> None:
    small_encoder().save_pretrained(tmp_path)
    OneVisionEncoderImageProcessor().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), OneVisionEncoderConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), OneVisionEncoderModel)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), OneVisionEncoderImageProcessor)


def test_image_processor_is_bicubic_and_clip_normalized() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (97, 61, 3), dtype=np.uint8)
    picture = Image.fromarray(colors)
    found: Any = OneVisionEncoderImageProcessor(size={"height": 56, "width": 42})(picture, return_tensors="pt")
    assert found["pixel_values"].shape == (1, 3, 56, 42)
    assert torch.allclose(found["pixel_values"][0], normalize(resized(picture, 42, 56)), atol=2e-6)
    assert OneVisionEncoderImageProcessor().size == {"height": 448, "width": 448}


def test_fresh_weights_are_neither_zero_nor_not_a_number() -> None:
    model = OneVisionEncoderModel(OneVisionEncoderConfig.preset("tiny"))
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
