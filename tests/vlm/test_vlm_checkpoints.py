"""Checkpoints of the vision-language model: published keys both ways, projector files, models made of parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel
from ov_model.errors import UsageError
from ov_model.vlm import build
from ov_model.vlm.config import LlavaQwen3Config
from ov_model.vlm.model import LlavaQwen3ForCausalLM, vlm_classes
from ov_model.vlm.projector import PROJECTOR_FILE, ProjectorMismatch, load_projector, save_projector
from ov_model.vlm.tiny import tiny_config, tiny_tokenizer
from tests.encoder.layout import LARGE, encoder_shapes, random_tensors, vlm_shapes
from tests.vlm.samples import batched, every_kind

LM: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
ENCODER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "patch_size": 14}
QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
TOKENIZER = tiny_tokenizer()


def write_sharded(tensors: dict[str, torch.Tensor], folder: Path, count: int) -> None:
    """Safetensors shards and their index, as published."""
    names, weight_map = sorted(tensors), {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::count]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def published(folder: Path, tensors: dict[str, torch.Tensor], shards: int, **config: Any) -> Path:
    """A checkpoint folder with the config.json of section 11: flat, no word about the encoder's sizes."""
    folder.mkdir()
    values = {
        "architectures": ["LlavaQwen3ForCausalLM"],
        "model_type": "llava_qwen3",
        "mm_vision_tower": "lmms-lab-encoder/onevision-encoder-large",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": 64,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [[574, 1120], [1120, 574]],
        "tokenizer_model_max_length": 8192,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_vision_tower_lr": 2e-06,
        "tie_word_embeddings": False,
        **LM,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(values))
    write_sharded(tensors, folder, shards)
    return folder


@pytest.mark.parametrize("head", [True, False])
def test_large_with_qwen3_4b_has_the_published_tensors(head: bool) -> None:
    config = build.vlm_config(
        Qwen3Config(**QWEN3_4B, tie_word_embeddings=False), OneVisionEncoderConfig.preset("large", use_head=head)
    )
    with torch.device("meta"):
        model = LlavaQwen3ForCausalLM(config)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == vlm_shapes(encoder_shapes(LARGE, head=head), LARGE, QWEN3_4B)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("head", [True, False])
def test_reference_checkpoint_loads_whole_and_is_saved_back_equal(tmp_path: Path, head: bool, shards: int) -> None:
    tensors = random_tensors(vlm_shapes(encoder_shapes(ENCODER, head=head), ENCODER, LM))
    source = published(tmp_path / "published", tensors, shards)
    model, report = LlavaQwen3ForCausalLM.from_pretrained(source, output_loading_info=True)
    assert not any(report.values()), report
    assert model.config.vision_config.use_head is head
    assert model.config.tokenizer_model_max_length == 8192
    model.save_pretrained(tmp_path / "ours", max_shard_size="100KB" if shards > 1 else "1GB")
    saved = {k: v for path in (tmp_path / "ours").glob("*.safetensors") for k, v in load_file(path).items()}
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 1 or shards == 1
    assert set(saved) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(saved[name], tensor), name
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == ["LlavaQwen3ForCausalLM"]


def test_auto_class_loads_it_in_a_fresh_process_and_generates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build.random_vlm(tiny_config(TOKENIZER))
    model.save_pretrained(tmp_path)
    code = (
        "import sys, torch, ov_model.vlm\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "print(type(model).__name__, *model.generate(torch.tensor([[5, 6]]), max_new_tokens=3, do_sample=False,"
        " eos_token_id=None)[0].tolist())"
    )
    output = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    expected = model.eval().generate(torch.tensor([[5, 6]]), max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert output.stdout.split() == ["LlavaQwen3ForCausalLM", *map(str, expected[0].tolist())]


@pytest.mark.parametrize("language_model", ["qwen3", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip_over_any_language_model(tmp_path: Path, language_model: str, tied: bool) -> None:
    config = tiny_config(TOKENIZER, language_model=language_model)
    config.tie_word_embeddings = tied
    model = build.random_vlm(config).eval()
    model.save_pretrained(tmp_path)
    again, report = build.load_vlm(tmp_path, output_loading_info=True)  # type: ignore[misc]
    assert not any(report.values()), report
    assert type(again) is type(model) is vlm_classes(language_model)[1]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is type(model)
    assert {**again.config.vision_config.to_dict(), "dtype": None} == model.config.vision_config.to_dict()
    given = batched(every_kind())
    assert again.eval()(**given).loss.item() == pytest.approx(model(**given).loss.item(), rel=1e-6)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    Qwen3Config(**LM).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="has model_type 'qwen3'"):
        build.load_vlm(tmp_path)


def test_encoder_that_config_json_only_names(tmp_path: Path) -> None:
    OneVisionEncoderConfig.preset("base", image_size=504).save_pretrained(tmp_path)
    assert LlavaQwen3Config(**LM).vision_config.hidden_size == 1024
    assert LlavaQwen3Config(**LM, mm_hidden_size=1280).vision_config.num_hidden_layers == 32
    assert LlavaQwen3Config(**LM, mm_vision_tower=str(tmp_path)).vision_config.image_size == 504
    with pytest.raises(UsageError, match="no published encoder has mm_hidden_size 77"):
        LlavaQwen3Config(**LM, mm_hidden_size=77)


def test_made_of_a_language_model_and_an_encoder(tmp_path: Path) -> None:
    lm = Qwen3ForCausalLM(Qwen3Config(**LM, tie_word_embeddings=False))
    encoder = OneVisionEncoderModel(OneVisionEncoderConfig.preset("tiny", use_head=False))
    lm.save_pretrained(tmp_path / "lm")
    encoder.save_pretrained(tmp_path / "encoder")
    model = build.from_parts(tmp_path / "lm", tmp_path / "encoder", mm_projector_type="linear")
    for name, tensor in lm.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
    assert model.config.mm_vision_tower == str(tmp_path / "encoder")
    fresh = model.get_parameter("model.mm_projector.weight")
    assert fresh.shape == (48, 64)
    assert fresh.std().item() == pytest.approx(0.02, rel=0.2)


def test_projector_file_holds_the_published_keys_and_loads_into_another_model(tmp_path: Path) -> None:
    first, second = (build.random_vlm(tiny_config(TOKENIZER)) for _ in range(2))
    path = tmp_path / "deep" / PROJECTOR_FILE
    save_projector(first.state_dict(), path)
    tensors = torch.load(path, weights_only=True)
    assert set(tensors) == {f"model.mm_projector.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}
    load_projector(second, path)
    for name, tensor in tensors.items():
        assert torch.equal(second.state_dict()[name], tensor)
    wider = build.random_vlm(tiny_config(TOKENIZER, hidden_size=128))
    with pytest.raises(ProjectorMismatch, match=r"mm_projector\.bin holds .*128, 64"):
        load_projector(wider, path)


def test_projector_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    torch.save({"model.mm_projector.0.weight": Path("x")}, tmp_path / PROJECTOR_FILE)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_projector(build.random_vlm(tiny_config(TOKENIZER)), tmp_path / PROJECTOR_FILE)


def test_dtype_of_a_random_model_is_the_asked_one() -> None:
    model = build.random_vlm(tiny_config(TOKENIZER), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert model(**batched(every_kind())).loss.isfinite()


def test_configuration_is_flat_and_nests_the_encoder(tmp_path: Path) -> None:
    config = tiny_config(TOKENIZER, mm_vision_tower_lr=2e-6, image_aspect_ratio="pad")
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "llava_qwen3"
    assert saved["hidden_size"] == saved["vision_config"]["hidden_size"] == 64
    assert saved["mm_hidden_size"] == 64
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is LlavaQwen3Config
    assert (again.mm_vision_tower_lr, again.image_aspect_ratio) == (2e-6, "pad")
    assert isinstance(again.vision_config, OneVisionEncoderConfig)
