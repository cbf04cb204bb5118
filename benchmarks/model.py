"""What the model costs at full size: time, memory and share of the device's arithmetic (MFU).

    python benchmarks/model.py    # small models on the CPU; on CUDA the large encoder and a 4B language model too

On the CPU: one forward pass, one generation and one optimizer step of a tiny encoder and language model at the
published geometry, 8 mosaics of 504 px, 10 368 visual tokens, and their peak memory. On CUDA, bfloat16, random weights:
a forward pass of encoder-large at that length and one SFT step of encoder-large with a language model shaped as
Qwen3-4B (activation checkpointing, AdamW), with each attention there is. Goals: encoder 50 % MFU, step 40 %.

MFU counts the products of the model itself, without what checkpointing computes again, against the dense peak that
the maker names for the device.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3Config

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel, choose_attention
from ov_model.geometry import Geometry
from ov_model.vlm import (
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
    PARTS,
    VisualBatch,
    VisualSample,
    random_vlm,
    train_parts,
    vlm_config,
)

QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
    "max_position_embeddings": 262_144,
}
SMALL_LM: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
DENSE_BF16_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}
QUESTION, ANSWER = 64, 128
GIB = 2**30


@dataclass(frozen=True)
class Measure:
    """Seconds of the quickest of several runs and the most memory that was held."""

    seconds: float
    gib: float

    def line(self, name: str, tokens: int, flops: float, peak: float | None) -> str:
        share = (
            f"{100 * flops / self.seconds / peak:5.1f} % MFU" if peak else f"{flops / self.seconds / 1e9:6.0f} GFLOP/s"
        )
        return f"  {name:<44}{self.seconds:9.3f} s {tokens / self.seconds:10.0f} tokens/s {self.gib:7.2f} GiB {share}"


def measure(work: Callable[[], object], device: torch.device, runs: int) -> Measure:
    """On the CPU the memory is the process's most so far, so run the small things first."""
    cuda = device.type == "cuda"
    if cuda:
        work()
        torch.cuda.reset_peak_memory_stats(device)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    held = (
        torch.cuda.max_memory_allocated(device) if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return Measure(min(taken), held / GIB)


def encoder_flops(config: OneVisionEncoderConfig, tokens: int, layers: int) -> float:
    """Of one sequence, forward."""
    width = config.hidden_size
    layer = 2 * (4 * width * width + 2 * width * config.intermediate_size) + 4 * tokens * width
    return tokens * (2 * config.num_channels * config.patch_size**2 * width + layers * layer)


def lm_flops(config: Any, tokens: int, answers: int) -> float:
    """Forward, causal attention counted half, logits of the answers only."""
    queries = config.num_attention_heads * config.head_dim
    pairs = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * queries + 2 * pairs + 3 * config.intermediate_size)
    layer = 2 * weights + 4 * tokens * queries / 2
    return tokens * config.num_hidden_layers * layer + 2 * answers * config.hidden_size * config.vocab_size


def step_flops(config: Any, visual: int, tokens: int) -> float:
    """Forward and backward, the latter twice the former."""
    encoder = config.vision_config
    projector = 2 * visual * config.hidden_size * (encoder.hidden_size + config.hidden_size)
    forward = encoder_flops(encoder, visual, encoder.num_hidden_layers - 1) + lm_flops(config, tokens, ANSWER)
    return 3 * (forward + projector)


def codec_video(geometry: Geometry) -> VisualSample:
    """Noise in the shape of a codec video, positions as a first whole frame and a spread of later tiles."""
    grid, count = geometry.grid, geometry.num_patches
    flat = torch.linspace(0, geometry.sequence_length * grid * grid - 1, count).long()
    flat[: grid * grid] = torch.arange(grid * grid)
    positions = torch.stack([flat // grid**2, flat // grid % grid, flat % grid], dim=1)
    size = geometry.encoder_size
    return VisualSample("noise", "codec", tuple(torch.randn(geometry.num_images, 3, size, size)), positions)


def conversation(sample: VisualSample, vocabulary: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of one row: the pictures, a question, an answer."""
    text = torch.randint(5, vocabulary, (QUESTION + ANSWER,))
    ids = torch.cat([torch.full((len(sample.pixels),), IMAGE_TOKEN_INDEX), text])
    labels = ids.clone()
    labels[:-ANSWER] = IGNORE_INDEX
    return ids[None].to(device), labels[None].to(device)


def measure_encoder(config: OneVisionEncoderConfig, sample: VisualSample, where: dict[str, Any], runs: int) -> Measure:
    device = torch.device(where["device"])
    config._attn_implementation = where["attention"]
    with device:
        model = OneVisionEncoderModel(config).to(dtype=where["dtype"]).eval()  # type: ignore[call-arg]
    if where["compiled"]:
        for layer in model.encoder.layers:
            layer.compile()
    ((pixels, positions),) = sample.sequences()
    pixels, positions = pixels.to(device, where["dtype"]), positions.to(device) if positions is not None else None
    with torch.inference_mode():
        return measure(lambda: model.encode_packed([pixels], patch_positions=[positions]), device, runs)


def measure_step(config: Any, sample: VisualSample, where: dict[str, Any], runs: int) -> Measure:
    device = torch.device(where["device"])
    model = random_vlm(config, device=device, dtype=where["dtype"], attention=where["attention"]).train()
    model.activation_checkpointing_enable()
    if where["compiled"]:
        for layer in model.encoder.encoder.layers:
            layer.compile()
    trained = set(train_parts(model, PARTS))
    optimizer = torch.optim.AdamW([p for name, p in model.named_parameters() if name in trained], lr=1e-5)
    ids, labels = conversation(sample, config.vocab_size, device)
    images = VisualBatch.of([sample]).to(device)

    def step() -> None:
        model(ids, labels=labels, images=images).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return measure(step, device, runs)


def measure_generation(config: Any, sample: VisualSample, runs: int) -> Measure:
    device = torch.device("cpu")
    model = random_vlm(config).eval()
    ids_1L = conversation(sample, config.vocab_size, device)[0][:, :-ANSWER]
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    return measure(lambda: model.generate(ids_1L, images=[sample], **options), device, runs)


def variants(device: torch.device) -> Iterator[dict[str, Any]]:
    """Attention and compilation to compare on CUDA; on the CPU the one that is used there."""
    if device.type == "cpu":
        yield {"device": device, "dtype": torch.float32, "attention": "sdpa", "compiled": False}
        return
    half = {"device": device, "dtype": torch.bfloat16}
    for attention in dict.fromkeys(("sdpa", choose_attention(device, torch.bfloat16))):
        for compiled in (False, True):
            yield {**half, "attention": attention, "compiled": compiled}


def label(name: str, where: dict[str, Any]) -> str:
    return f"{name}, {where['attention']}{', compiled' if where['compiled'] else ''}"


def on_cpu(geometry: Geometry, runs: int) -> None:
    """Forward, step and generation at full length with models that fit any machine."""
    device = torch.device("cpu")
    sample = codec_video(geometry)
    (where,) = variants(device)
    encoder = OneVisionEncoderConfig.preset("tiny")
    visual = sample.num_tokens
    tokens = visual + QUESTION + ANSWER
    print(
        f"CPU, {torch.get_num_threads()} threads, float32, {visual} visual tokens; memory is the process's peak so far"
    )

    found = measure_encoder(encoder, sample, where, runs)
    print(found.line("encoder tiny, forward, sdpa", visual, encoder_flops(encoder, visual, 2), None))

    config = vlm_config(Qwen3Config(**SMALL_LM), encoder)
    found = measure_generation(config, sample, runs)
    print(found.line("tiny model, generation of 8 tokens, sdpa", visual, lm_flops(config, visual + QUESTION, 1), None))

    found = measure_step(config, sample, where, runs)
    print(found.line("tiny model, optimizer step, sdpa", tokens, step_flops(config, visual, tokens), None))


def on_cuda(geometry: Geometry, runs: int) -> None:
    """Encoder-large and a 4B language model, each attention that there is."""
    device = torch.device("cuda")
    name = torch.cuda.get_device_name(device)
    peak = next((1e12 * value for key, value in DENSE_BF16_TFLOPS.items() if key in name), None)
    sample = codec_video(geometry)
    visual = sample.num_tokens
    tokens = visual + QUESTION + ANSWER
    print(f"{name}, bfloat16, {visual} visual tokens" + ("" if peak else "; its peak is not known here: no MFU"))
    if choose_attention(device, torch.bfloat16) == "sdpa":
        print("  flash-attn cannot be imported: sdpa only")

    large = OneVisionEncoderConfig.preset("large")
    work: list[tuple[str, int, float, Callable[[dict[str, Any]], Measure]]] = [
        (
            "encoder-large, forward",
            visual,
            encoder_flops(large, visual, large.num_hidden_layers),
            lambda where: measure_encoder(OneVisionEncoderConfig.preset("large"), sample, where, runs),
        ),
        (
            "encoder-large + 4B, SFT step",
            tokens,
            step_flops(vlm_config(Qwen3Config(**QWEN3_4B), large), visual, tokens),
            lambda where: measure_step(vlm_config(Qwen3Config(**QWEN3_4B), large), sample, where, runs),
        ),
    ]
    for title, count, flops, run in work:
        for where in variants(device):
            try:
                print(run(where).line(label(title, where), count, flops, peak))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                print(f"  {label(title, where):<44}failed: {str(error).splitlines()[0]}", file=sys.stderr)
            gc.collect()
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each; the quickest counts")
    runs = parser.parse_args().runs
    torch.manual_seed(0)
    on_cpu(Geometry(), runs)
    if torch.cuda.is_available():
        on_cuda(Geometry(), runs)
    else:
        print("No CUDA device here: encoder-large, the 4B step and MFU were not measured.")


if __name__ == "__main__":
    main()
