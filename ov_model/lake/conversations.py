"""From a record's conversations to those of a training row: `<video>` becomes N `<image>` lines."""

from __future__ import annotations

from typing import Any

from ov_model.errors import BadRecord
from ov_model.lake.records import Record, count_placeholders


def to_images(record: Record, num_images: int) -> list[dict[str, Any]]:
    """The conversations of a video record with N placeholders in the first human turn.

    The first `<video>` there becomes N `<image>` lines; a turn that has `<image>` stays; one with neither gets them
    prepended.

    Raises:
        BadRecord: the result does not hold exactly N `<image>` in its human turns.
    """
    block = "\n".join(["<image>"] * num_images)
    turns = [dict(turn) for turn in record.data["conversations"]]
    first = next((turn for turn in turns if turn["from"] == "human"), None)
    if first is None:
        raise BadRecord(f"record {record.row} (id {record.id!r}): no human turn to put the images in")
    text = first["value"]
    if "<video>" in text:
        first["value"] = text.replace("<video>", block, 1)
    elif "<image>" not in text:
        first["value"] = f"{block}\n{text}"
    found = count_placeholders(turns)
    if found != num_images:
        raise BadRecord(
            f"record {record.row} (id {record.id!r}): {found} <image> in the human turns for {num_images} mosaics; "
            "use one <video> in the first human turn"
        )
    return turns
