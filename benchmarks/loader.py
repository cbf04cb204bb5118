"""How much the training loader costs beside the work that it cannot avoid.

    python benchmarks/loader.py [--samples 12] [--workers 2]

The floor decodes, resizes (PIL bicubic) and normalizes the same mosaics, in this run; the loader's rate over the
floor's is printed (goal .9), with and without loader processes. Then the option of resizing and normalizing in one
batch on the device (torch bicubic with antialiasing: other rounding, so never used for training), with the difference.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ov_model.geometry import Geometry
from ov_model.train.data import JsonlDataset, collate
from ov_model.train.recipe import DataRecipe
from ov_model.vlm.preprocess import CLIP_MEAN, CLIP_STD
from ov_model.vlm.tiny import tiny_tokenizer

RUNS = 5
GEOMETRY = Geometry()


def write_samples(folder: Path, count: int) -> Path:
    """Codec videos of the published geometry, textured as pictures are, JPEG quality 95."""
    dice, side = np.random.default_rng(0), GEOMETRY.square_size
    pos_K3 = np.stack(np.unravel_index(np.arange(GEOMETRY.num_patches), (GEOMETRY.num_images, *[GEOMETRY.grid] * 2)), 1)
    lines = []
    for number in range(count):
        home = folder / f"sample_{number}"
        home.mkdir()
        names = []
        for index in range(GEOMETRY.num_images):
            coarse = Image.fromarray(dice.integers(0, 256, (48, 48, 3), np.uint8)).resize((side, side))
            noise = dice.integers(-12, 13, (side, side, 3))
            Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(
                home / f"clip_{index:03d}.jpg", quality=95
            )
            names.append(f"{home.name}/clip_{index:03d}.jpg")
        np.save(home / "positions_thw.npy", pos_K3.astype(np.int32))
        talk = [{"from": "human", "value": "<image>\n" * len(names) + "What?"}, {"from": "gpt", "value": "A test."}]
        row = {
            "id": str(number),
            "conversations": talk,
            "image": names,
            "positions_thw": f"{home.name}/positions_thw.npy",
        }
        lines.append(json.dumps(row) + "\n")
    jsonl = folder / "train.jsonl"
    jsonl.write_text("".join(lines))
    return jsonl


def bare_loop(paths: list[Path]) -> None:
    """The floor: decode, resize, normalize."""
    size = (GEOMETRY.encoder_size, GEOMETRY.encoder_size)
    scale = torch.tensor([1 / (255 * std) for std in CLIP_STD])[:, None, None]
    shift = torch.tensor([-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)])[:, None, None]
    for path in paths:
        with Image.open(path) as file:
            image = file.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)
        torch.addcmul(shift, pixels, scale)


def on_device(paths: list[Path], device: str) -> torch.Tensor:
    """Decode here, then resize and normalize all on the device at once; float32 [N,3,H,W]."""
    frames = []
    for path in paths:
        with Image.open(path) as file:
            frames.append(torch.from_numpy(np.array(file.convert("RGB"))))
    batch = torch.stack(frames).to(device).permute(0, 3, 1, 2).to(torch.float32)
    size = (GEOMETRY.encoder_size, GEOMETRY.encoder_size)
    batch = torch.nn.functional.interpolate(batch, size, mode="bicubic", antialias=True).clamp(0, 255)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    batch = (batch / 255 - mean) / std
    if device != "cpu":
        torch.cuda.synchronize()
    return batch


def interleaved(works: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, float]:
    """Least seconds of each, taken in turns, so that a busy machine slows all alike."""
    least = dict.fromkeys(works, float("inf"))
    for _ in range(runs + 1):
        for name, work in works.items():
            gc.collect()
            started = time.perf_counter()
            work()
            least[name] = min(least[name], time.perf_counter() - started)
    return least


def drain(loader: DataLoader[object]) -> None:
    for _ in loader:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        jsonl = write_samples(Path(folder), options.samples)
        paths = sorted(Path(folder).glob("sample_*/*.jpg"))
        dataset = JsonlDataset(jsonl, DataRecipe(geometry=GEOMETRY, max_length=20_000), tiny_tokenizer())
        together = partial(collate, pad_token_id=0)
        plain = DataLoader(dataset, batch_size=1, collate_fn=together)  # type: ignore[arg-type]
        least = interleaved({"bare loop": lambda: bare_loop(paths), "loader": lambda: drain(plain)})
        rates = {name: options.samples / seconds for name, seconds in least.items()}
        share = rates["loader"] / rates["bare loop"]
        print(f"bare loop, one process:  {rates['bare loop']:7.2f} samples/s of {GEOMETRY.num_images} mosaics")
        print(f"loader, one process:     {rates['loader']:7.2f} samples/s, {share:.3f} of it")
        if options.workers:
            many = DataLoader(
                dataset,
                batch_size=1,
                collate_fn=together,
                num_workers=options.workers,
                persistent_workers=True,
                multiprocessing_context="spawn",
                prefetch_factor=4,
            )  # type: ignore[arg-type]
            rate = options.samples / interleaved({"loader": lambda: drain(many)})["loader"]
            share = rate / options.workers / rates["bare loop"]
            print(f"loader, {options.workers} processes:     {rate:7.2f} samples/s, {share:.3f} of it for each process")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        some = paths[: GEOMETRY.num_images]
        rate = 1 / interleaved({"device": lambda: on_device(some, device)})["device"]
        share = rate / rates["bare loop"]
        print(f"resized on {device} in a batch: {rate:4.2f} samples/s, {share:.3f} of it")
        mosaics = torch.stack(dataset.load(0).visual.pixels)  # type: ignore[union-attr]
        std = torch.tensor(CLIP_STD)[:, None, None] * 255
        levels = ((on_device(some, device).cpu() - mosaics) * std).abs()
        print(f"  differs from PIL by up to {levels.max():.1f} of 255 levels, {levels.mean():.2f} on average")


if __name__ == "__main__":
    main()
