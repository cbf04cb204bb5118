"""The vision-language model: mixed batches, padding, loss, generation, what is trained."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from ov_model.errors import UsageError, VisualMismatch
from ov_model.geometry import Geometry
from ov_model.vlm import build
from ov_model.vlm.images import VisualSample, text_sample
from ov_model.vlm.model import VisionLanguage, vlm_classes
from ov_model.vlm.projector import make_projector
from ov_model.vlm.prompt import IGNORE_INDEX
from ov_model.vlm.tiny import LEAST_ENTRIES, tiny_config, tiny_tokenizer
from tests.vlm.samples import IMAGE, batched, codec, every_kind, frames, noise, pictures

TOKENIZER = tiny_tokenizer(["a red ball rolls"])
LANGUAGE_MODELS = ["qwen3", "llama", "gpt2"]


def tiny_model(language_model: str = "qwen3", **fields: Any) -> VisionLanguage:
    """Random weights that are large enough for every path to show in the output."""
    torch.manual_seed(0)
    model = build.random_vlm(tiny_config(TOKENIZER, language_model=language_model, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


def by_hand(model: VisionLanguage, ids: list[int], sample: Any) -> torch.Tensor:
    """Logits [L,V] of one row, embeddings put together picture by picture, through the language model's own class."""
    lm_class = type(model).__mro__[2]
    states = []
    for pixels_3THW, positions_L3 in sample.sequences():
        where = None if positions_L3 is None else positions_L3[None]
        encoded = model.encoder(pixels_3THW[None], patch_positions=where, output_hidden_states=True)
        states.append(model.mm_projector(encoded.hidden_states[-2][0]))
    features = torch.cat(states).split(sample.tokens_per_image) if states else ()
    following = iter(features)
    table = cast(nn.Embedding, model.get_input_embeddings()).weight
    embeds = [next(following) if token == IMAGE else table[token][None] for token in ids]
    return lm_class.forward(model, inputs_embeds=torch.cat(embeds)[None]).logits[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_a_mixed_batch_equals_its_rows_one_by_one(language_model: str, left: bool) -> None:
    model = tiny_model(language_model, tokenizer_padding_side="left" if left else "right")
    rows = every_kind()
    given = batched(rows, left=left)
    del given["labels"]
    logits = model(**given).logits
    for row, (ids, sample) in enumerate(rows):
        expected = by_hand(model, ids, sample)
        length = len(ids) - len(sample.pixels) + sample.num_tokens
        found = logits[row, -length:] if left else logits[row, :length]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
def test_loss_is_the_mean_over_the_answers_tokens(language_model: str) -> None:
    model, rows = tiny_model(language_model), every_kind()
    output = model(**batched(rows))
    losses, logits = [], []
    for ids, sample in rows:
        alone = by_hand(model, ids, sample)
        logits.append(alone[-3:-1])
        losses.append(nn.functional.cross_entropy(alone[-3:-1], torch.tensor(ids[-2:]), reduction="none"))
    assert output.loss.item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert torch.allclose(output.logits, torch.cat(logits), rtol=1e-3, atol=1e-3)


def test_loss_divides_by_the_items_of_the_whole_batch() -> None:
    """What the Trainer passes when gradients are accumulated or averaged over ranks."""
    model, given = tiny_model(), batched(every_kind())
    mean = model(**given).loss
    assert model(**given, num_items_in_batch=40).loss.item() == pytest.approx(mean.item() * 10 / 40, rel=1e-5)


def test_every_part_gets_a_gradient() -> None:
    model = tiny_model().train()
    model(**batched([every_kind()[0]])).loss.backward()
    for name in (
        "model.vision_tower.vision_tower.embeddings.patch_embedding.weight",
        "model.mm_projector.0.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "lm_head.weight",
    ):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_samples_of_a_batch_keep_their_own_positions() -> None:
    model = tiny_model()
    first, second = codec(seed=0), codec(seed=5)
    ids = every_kind()[0][0]
    both = model(**batched([(ids, first), (ids, second)])).logits
    swapped = model(**batched([(ids, second), (ids, first)])).logits
    assert torch.allclose(both, swapped[[2, 3, 0, 1]], atol=1e-4)
    assert not torch.allclose(both[:2], both[2:], atol=1e-2)


@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
@pytest.mark.parametrize("left", [False, True])
def test_generation_of_a_batch_equals_one_by_one(language_model: str, left: bool) -> None:
    model, rows = tiny_model(language_model), every_kind()
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    given = batched(rows, left=left)
    together = model.generate(given["input_ids"], given["attention_mask"], given["images"], **options)
    assert together.shape == (5, 6)
    for row, (ids, sample) in enumerate(rows):
        alone = model.generate(torch.tensor([ids]), images=[sample], **options)
        assert together[row].tolist() == alone[0].tolist()
        step_by_step = list(ids)
        for token in alone[0].tolist()[:3]:
            assert int(by_hand(model, step_by_step, sample)[-1].argmax()) == token
            step_by_step.append(token)


def test_text_alone_needs_no_images() -> None:
    model = tiny_model()
    ids = torch.tensor([[9, 70, 71, 72]])
    plain = type(model).__mro__[2]
    expected: Any = plain.forward(model, input_ids=ids, labels=ids)  # type: ignore[attr-defined]
    assert model(input_ids=ids, labels=ids).loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert torch.allclose(model(input_ids=ids).logits, expected.logits, atol=1e-5)
    assert model.generate(ids, max_new_tokens=2, do_sample=False, eos_token_id=None).shape == (1, 2)


def test_text_only_batch_in_training_still_runs_every_module() -> None:
    """Else a rank without pictures would leave the others waiting; the loss is that of the text alone."""
    model = tiny_model()
    given = batched([([9, 70, 71], text_sample("t"))])
    expected = model(**given).loss.item()
    model.train()
    loss = model(**given).loss
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    gradient = model.get_parameter("model.mm_projector.0.weight").grad
    assert gradient is not None
    assert gradient.abs().max() == 0


def test_a_batch_without_a_supervised_token_has_loss_zero() -> None:
    model = tiny_model().train()
    given = batched(every_kind())
    loss = model(**{**given, "labels": torch.full_like(given["labels"], IGNORE_INDEX)}).loss
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([([9, IMAGE, 8, 40], codec())], "sample 'codec': 1 image placeholders for 2 pictures of kind 'codec'"),
        (
            [([9, 70], text_sample("t")), ([9, 8, 40], pictures((14, 14)))],
            "sample 'pictures': 0 image placeholders for 1",
        ),
        ([([9, IMAGE, 70], text_sample("t"))], "sample 't': 1 image placeholders for 0"),
    ],
)
def test_counts_that_do_not_fit_name_the_sample(rows: Any, message: str) -> None:
    model, given = tiny_model(), batched(rows)
    with pytest.raises(VisualMismatch, match=message):
        model(**given)
    with pytest.raises(VisualMismatch, match=message):
        model.generate(given["input_ids"], given["attention_mask"], given["images"], max_new_tokens=1)


def test_images_that_are_missing_or_too_many_are_errors() -> None:
    model, given = tiny_model(), batched(every_kind())
    with pytest.raises(VisualMismatch, match="placeholders, but no images"):
        model(given["input_ids"], given["attention_mask"])
    with pytest.raises(VisualMismatch, match=r"5 rows for 1 samples \('frames'\)"):
        model(given["input_ids"], given["attention_mask"], images=[frames()])


def test_gradient_checkpointing_changes_no_loss_and_no_gradient() -> None:
    results = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.encoder.encoder.layers)
        loss = model(**batched(every_kind())).loss
        loss.backward()
        results.append((loss.item(), model.get_parameter("model.mm_projector.0.weight").grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert results[0][1] is not None
    assert results[1][1] is not None
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp1x_gelu", "mlp2x_gelu", "mlp3x_gelu"])
def test_projectors(kind: str) -> None:
    projector = make_projector(kind, 8, 12)
    layers = [m for m in projector.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == (1 if kind == "linear" else int(kind[3]))
    assert projector(noise(5, 8)).shape == (5, 12)
    assert sum(isinstance(m, nn.GELU) for m in projector.modules()) == len(layers) - 1
    assert tiny_model(mm_projector_type=kind)(**batched(every_kind())).loss.isfinite()


def test_configurations_that_cannot_be_honored_are_errors() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"mm_projector_type": "qformer"}, "linear or mlpNx_gelu"),
        ({"mm_vision_select_layer": -4}, "the encoder has 3 states"),
        ({"mm_vision_select_feature": "cls_patch"}, "cannot be honored"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "cannot be honored"),
        ({"mm_hidden_size": 32}, "mm_hidden_size is 32, but the encoder's is 64"),
    ]
    for fields, message in refused:
        with pytest.raises(UsageError, match=message):
            tiny_model(**fields)
    with pytest.raises(UsageError, match="no causal language model of type 'resnet'"):
        vlm_classes("resnet")


def test_parts_are_trained_as_named_and_nothing_beyond_the_read_layer() -> None:
    model = tiny_model().train()
    projector = build.train_parts(model, ["mm_mlp_adapter"])
    assert sorted(projector) == [f"model.mm_projector.{n}.{kind}" for n in (0, 2) for kind in ("bias", "weight")]
    everything = build.train_parts(model, build.PARTS)
    model(**batched(every_kind())).loss.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in model.named_parameters()} - set(everything)
    assert {build.part_of(name) for name in everything} == set(build.PARTS)
    assert all("layers.1." in name or "head." in name or "layernorm_post" in name for name in without)
    with pytest.raises(UsageError, match="cannot train mm_audio"):
        build.train_parts(model, ["mm_audio"])


def test_smallest_tokenizer_holds_any_text() -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == LEAST_ENTRIES
    text = "Größe 大小 \U0001f600\n<|im_end|> x"
    assert tokenizer.decode(tokenizer(text, split_special_tokens=True)["input_ids"]) == text


def test_one_optimizer_step_lowers_the_loss() -> None:
    model = tiny_model().train()
    given = batched(every_kind())
    optimizer = torch.optim.SGD([model.get_parameter(n) for n in build.train_parts(model, build.PARTS)], lr=1e-3)
    before = model(**given).loss
    before.backward()
    optimizer.step()
    assert model(**given).loss < before


def test_a_whole_published_video_is_read_and_answered() -> None:
    geometry = Geometry()
    cells = torch.arange(geometry.num_patches)
    positions = torch.stack([cells // 1296 * 9, cells // 36 % 36, cells % 36], dim=1)
    size = geometry.encoder_size
    video = VisualSample("video", "codec", tuple(noise(8, 3, size, size)), positions)
    model, given = tiny_model(), batched([([9, *[IMAGE] * 8, 70, 71, 72], video)])
    with torch.no_grad():
        assert model(**given).loss.isfinite()
    answer = model.generate(given["input_ids"], images=[video], max_new_tokens=2, do_sample=False, eos_token_id=None)
    assert answer.shape == (1, 2)
