"""What a checkpoint holds, before it is loaded: its keys decide between the two published layouts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

logger = logging.getLogger(__name__)
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def checkpoint_keys(name_or_path: str | Path, **hub: Any) -> frozenset[str] | None:
    """Names of the tensors in a folder or hub repository of safetensors, one file or sharded; None without any."""
    found = {}
    for name in (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME):
        found[name] = cached_file(str(name_or_path), name, _raise_exceptions_for_missing_entries=False, **hub)
        if found[name] is not None:
            break
    if index := found.get(SAFE_WEIGHTS_INDEX_NAME):
        return frozenset(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"])
    if weights := found.get(SAFE_WEIGHTS_NAME):
        with safe_open(weights, framework="pt") as tensors:
            return frozenset(tensors.keys())
    return None


def adapt_to_checkpoint(
    config_class: type[PretrainedConfig], name_or_path: Any, kwargs: dict[str, Any], prefix: str = ""
) -> None:
    """Set `use_head` of the encoder's configuration to what the checkpoint has; both layouts are published.

    Args:
        kwargs: of `from_pretrained`; its "config" is filled in or changed. Nothing happens where weights are given as
            a "state_dict", or the checkpoint has no tensor of an encoder.
        prefix: of the encoder's keys in the checkpoint.
    """
    if name_or_path is None or kwargs.get("state_dict") is not None or kwargs.get("gguf_file") is not None:
        return
    hub = {name: kwargs[name] for name in HUB_OPTIONS if kwargs.get(name) is not None}
    config = kwargs.get("config")
    if not isinstance(config, PretrainedConfig):
        config = config_class.from_pretrained(config or name_or_path, **hub)
    keys = checkpoint_keys(name_or_path, **hub)
    if keys is not None and f"{prefix}embeddings.patch_embedding.weight" in keys:
        encoder = getattr(config, "vision_config", config)
        use_head = f"{prefix}head.probe" in keys
        if encoder.use_head != use_head:
            logger.info("%s: use_head is %s, as its tensors say", name_or_path, use_head)
            encoder.use_head = use_head
    kwargs["config"] = config
