"""The encoder against an independent float64 computation, and its paths against each other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel, choose_attention, modeling
from ov_model.encoder.attention import Segments, attend
from ov_model.encoder.rotary import axis_sizes, inverse_frequencies, rotate, rotation
from ov_model.encoder.tokens import EncoderInputError
from ov_model.errors import UsageError
from tests.encoder.float64 import encode
from tests.encoder.models import pixels, relative, small_encoder

TOLERANCE = 1e-5


def weights(model: OneVisionEncoderModel) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def check_against_float64(
    model: OneVisionEncoderModel,
    pixel_values: torch.Tensor,
    token_indices: torch.Tensor | None = None,
    patch_positions: torch.Tensor | None = None,
) -> None:
    assert pixel_values.ndim in (4, 5)
    with torch.no_grad():
        found: Any = model(pixel_values, token_indices, patch_positions, output_hidden_states=True)
    assert len(found.hidden_states) == model.config.num_hidden_layers + 1
    for sample in range(len(pixel_values)):
        video = pixel_values[sample] if pixel_values.ndim == 5 else pixel_values[sample].unsqueeze(1)
        own = None
        if patch_positions is not None:
            own = patch_positions[sample % len(patch_positions)].numpy()
        last, pooled, states = encode(
            weights(model),
            model.config,
            video.numpy(),
            None if token_indices is None else token_indices[sample].numpy(),
            own,
        )
        assert relative(found.last_hidden_state[sample], last) <= TOLERANCE
        for state, expected in zip(found.hidden_states, states, strict=True):
            assert relative(state[sample], expected) <= TOLERANCE
        head = found.pooler_output
        if pooled is None:
            assert head is None
        else:
            assert relative(head[sample], pooled) <= TOLERANCE


def random_positions(*shape: int, limit: int = 64, seed: int = 3) -> torch.Tensor:
    return torch.randint(0, limit, (*shape, 3), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("changes", [{}, {"use_head": False}, {"layer_norm_type": "rms_norm"}])
def test_image_equals_float64(attention: str, changes: dict[str, Any]) -> None:
    check_against_float64(small_encoder(attention=attention, **changes), pixels(2, 3, 42, 56))


def test_video_equals_float64() -> None:
    check_against_float64(small_encoder(), pixels(2, 3, 5, 28, 42))


def test_sparse_video_equals_float64() -> None:
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5))
    check_against_float64(small_encoder(), pixels(2, 3, 4, 28, 42), torch.stack([order[:7], order[7:14]]))


@pytest.mark.parametrize("given", [1, 3])
def test_explicit_positions_equal_float64_for_all_samples_or_each_its_own(given: int) -> None:
    check_against_float64(small_encoder(), pixels(3, 3, 2, 28, 28), None, random_positions(given, 8))


def test_sparse_tokens_with_explicit_positions_equal_float64() -> None:
    indices = torch.tensor([[0, 5, 3], [7, 7, 1]])
    check_against_float64(small_encoder(), pixels(2, 3, 2, 28, 28), indices, random_positions(2, 3))


@pytest.mark.parametrize("preset", ["base", "large", "huge"])
def test_other_head_counts_split_frequencies_alike(preset: str) -> None:
    assert axis_sizes(OneVisionEncoderConfig.preset(preset).head_dim) == (8, 12, 12)


def test_sdpa_equals_eager() -> None:
    given = pixels(2, 3, 4, 42, 28)
    eager, sdpa = (small_encoder(attention=name)(given) for name in ("eager", "sdpa"))
    assert relative(sdpa.last_hidden_state, eager.last_hidden_state.detach()) <= TOLERANCE
    assert relative(sdpa.pooler_output, eager.pooler_output.detach()) <= TOLERANCE


MIXED = [(3, 28, 42), (3, 28, 42), (3, 4, 28, 28), (3, 14, 14), (3, 2, 42, 14), (3, 14, 42)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_equals_unpacked(attention: str) -> None:
    model = small_encoder(attention=attention)
    given = [pixels(*shape, seed=seed) for seed, shape in enumerate(MIXED)]
    positions = [None, random_positions(6), random_positions(16), None, None, None]
    indices = [None, None, None, None, torch.tensor([5, 0, 2]), None]
    packed = model.encode_packed(given, indices, positions)
    assert packed.lengths == (6, 6, 16, 1, 3, 3)
    assert packed.pooled_BC is not None
    for number, part in enumerate(packed.split()):
        index, where = indices[number], positions[number]
        alone = model(
            given[number][None], None if index is None else index[None], None if where is None else where[None]
        )
        assert relative(part, alone.last_hidden_state[0].detach()) <= TOLERANCE
        assert relative(packed.pooled_BC[number], alone.pooler_output[0].detach()) <= TOLERANCE


def test_packed_layer_is_that_hidden_state() -> None:
    model, given = small_encoder(), pixels(3, 4, 28, 28)
    states = model(given[None], output_hidden_states=True).hidden_states
    for layer in (0, 1, -2, -3):
        assert relative(model.encode_packed([given], layer=layer).features_LC, states[layer][0].detach()) <= TOLERANCE


def test_layers_after_the_asked_one_are_not_run() -> None:
    model = small_encoder()
    with torch.no_grad():
        model.get_parameter("encoder.layers.2.mlp.fc1.weight").fill_(torch.nan)
    assert model.encode_packed([pixels(3, 28, 28)], layer=-2).features_LC.isfinite().all()


def test_blocks_are_what_a_block_diagonal_mask_gives() -> None:
    segments = Segments.of([2, 2, 3, 1, 3], torch.device("cpu"))
    query, key, value = pixels(3, 1, 2, 11, 32)
    masked = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=segments.mask())
    found = attend(small_encoder(), "sdpa", query, key, value, segments, scaling=32**-0.5, is_causal=False)
    assert relative(found.transpose(1, 2), masked) <= TOLERANCE
    assert [(run.start, run.count, run.length) for run in segments.runs] == [(0, 2, 2), (4, 1, 3), (7, 1, 1), (8, 1, 3)]
    assert segments.offsets.tolist() == [0, 2, 4, 7, 8, 11]


def test_samples_of_a_batch_keep_their_own_positions() -> None:
    model, given, positions = small_encoder(), pixels(1, 3, 28, 28).expand(2, -1, -1, -1), random_positions(2, 4)
    both = model(given, patch_positions=positions).last_hidden_state
    for sample in range(2):
        alone = model(given[:1], patch_positions=positions[sample : sample + 1]).last_hidden_state
        assert relative(both[sample], alone[0].detach()) <= TOLERANCE
    assert relative(both[0], both[1].detach()) > 0.01


def test_rotation_is_not_orthogonal_and_channels_pair_with_neighbors() -> None:
    cosine, sine = rotation(torch.tensor([[[3, 5, 7]]]), 64, 10000.0)
    unit = torch.zeros(1, 1, 1, 64)
    unit[..., 10] = 1.0
    turned = rotate(unit, cosine, sine)[0, 0, 0]
    assert turned.nonzero().flatten().tolist() == [10, 11]
    # The first 8 frequencies are of t, so channels 10 and 11 have those of h with index 2 and 3.
    frequencies = inverse_frequencies(12, 10000.0, torch.device("cpu"))
    assert turned[10].item() == pytest.approx(float(torch.cos(5 * frequencies[2])), abs=1e-6)
    assert turned[11].item() == pytest.approx(float(torch.sin(5 * frequencies[3])), abs=1e-6)
    assert abs(turned.norm().item() - 1) > 0.01


def test_token_at_the_origin_is_not_turned() -> None:
    x = pixels(1, 2, 1, 64)
    assert torch.equal(rotate(x, *rotation(torch.zeros(1, 1, 3, dtype=torch.int64), 64, 10000.0)), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_angles_are_float32_whatever_the_model_is_cast_to(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(*arguments: Any) -> Any:
        seen.append(rotation(*arguments))
        return seen[-1]

    monkeypatch.setattr(modeling, "rotation", spy)
    positions = torch.tensor([[[63, 35, 35], [62, 34, 33], [61, 1, 2], [60, 0, 1]]])
    model: Any = small_encoder()
    model(pixels(1, 3, 28, 28), patch_positions=positions)
    with torch.autocast("cpu", dtype=dtype):
        model(pixels(1, 3, 28, 28), patch_positions=positions)
    model.to(dtype=dtype)
    assert model(pixels(1, 3, 28, 28), patch_positions=positions).last_hidden_state.dtype == dtype
    for turn in seen[1:]:
        for before, after in zip(seen[0], turn, strict=True):
            assert after.dtype == torch.float32
            assert torch.equal(before, after)
    assert len(seen) == 3


def test_no_frequency_is_in_the_state_or_a_buffer() -> None:
    model = small_encoder()
    assert list(model.buffers()) == []
    assert not [name for name in model.state_dict() if "inv_freq" in name]


def test_more_frames_than_the_rotary_embedding_knows_need_positions() -> None:
    model, given = small_encoder(rope_temporal_size=4), pixels(1, 3, 5, 14, 14)
    with pytest.raises(EncoderInputError, match=r"5 frames without patch_positions, but rope_temporal_size is 4"):
        model(given)
    with pytest.raises(EncoderInputError, match="5 frames"):
        model.encode_packed([given[0]])
    model(given, patch_positions=random_positions(1, 5))
    check_against_float64(small_encoder(rope_temporal_size=None), given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_values": pixels(1, 3, 28, 30)}, r"shape \(1, 3, 28, 30\).*whole 14 px patches"),
        ({"pixel_values": pixels(1, 4, 28, 28)}, r"must be \[B,3,H,W\]"),
        ({"pixel_values": pixels(3, 28, 28)}, r"must be \[B,3,H,W\]"),
        ({"token_indices": torch.tensor([[0, 4]])}, r"from 0 to 4; there are 4 tokens"),
        ({"token_indices": torch.tensor([[-1]])}, r"from -1"),
        ({"token_indices": torch.tensor([0, 1])}, r"integers \[1,L\]"),
        ({"token_indices": torch.tensor([[0.0]])}, r"float32"),
        ({"patch_positions": random_positions(1, 5)}, r"\(1, 5, 3\); they must be integers \[1 or 1,4,3\]"),
        ({"patch_positions": random_positions(2, 4)}, r"\(2, 4, 3\)"),
        ({"patch_positions": random_positions(1, 4).float()}, r"float32"),
        ({"token_indices": torch.tensor([[0]]), "patch_positions": random_positions(1, 4)}, r"\[1 or 1,1,3\]"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderInputError, match=message):
        small_encoder()(**{"pixel_values": pixels(1, 3, 28, 28), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 100}, "multiple of num_attention_heads"),
        ({"hidden_size": 96, "num_attention_heads": 2}, "multiple of 32"),
        ({"layer_norm_type": "batch"}, "layer_norm or rms_norm"),
    ],
)
def test_configurations_that_cannot_work_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OneVisionEncoderConfig(**changes)
    with pytest.raises(UsageError, match="no encoder preset 'giant'"):
        OneVisionEncoderConfig.preset("giant")


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = small_encoder().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model.encode_packed([pixels(3, 28, 28), pixels(3, 2, 14, 28)]).features_LC.square().sum().backward()
        gradients.append([p.grad for name, p in model.named_parameters() if not name.startswith("head.")])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain is not None
        assert torch.allclose(plain, checkpointed, rtol=1e-5, atol=1e-6)


def test_attention_is_sdpa_where_flash_attention_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert choose_attention("cpu", torch.bfloat16) == "sdpa"
    assert choose_attention("cuda", torch.float32) == "sdpa"
    assert choose_attention("cuda", torch.bfloat16) == "flash_attention_2"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_attention("cuda", torch.bfloat16) == "sdpa"


def test_flash_attention_gets_the_pack_as_variable_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU; what reaches it does not."""
    calls: list[dict[str, Any]] = []

    def kernel(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, **options: Any):
        calls.append(options)
        ends = options["cu_seq_lens_q"].tolist()
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], scale=options["scaling"]
            )
            for a, b in pairwise(ends)
        ]
        return torch.cat(parts, dim=2).transpose(1, 2), None

    given = [pixels(*shape, seed=seed) for seed, shape in enumerate(MIXED)]
    model = small_encoder()
    expected = model.encode_packed(given).features_LC
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", kernel)
    model.config._attn_implementation_internal = "flash_attention_2"
    assert relative(model.encode_packed(given).features_LC, expected.detach()) <= TOLERANCE
    assert calls[0]["cu_seq_lens_k"].dtype == torch.int32
    assert calls[0]["max_length_q"] == calls[0]["max_length_k"] == 16
    assert calls[0]["is_causal"] is False
