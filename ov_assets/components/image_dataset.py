"""`ImageDataset`: a raw dataset of images and text, which goes into the training JSONL as it is."""

from __future__ import annotations

from pathlib import Path

from ov_assets.components.dataset_component import DatasetComponent
from ov_assets.components.lane import Lane
from ov_assets.components.stages import IMAGE_STAGES
from ov_model.lake.dataset import Dataset, DatasetSpec


class ImageDataset(DatasetComponent):
    """Raw image and text records -> training JSONL, without decoding."""

    def lane(self, name: str, project: Path) -> Lane:
        spec = DatasetSpec(name=name, **self._placement(name, project))
        return Lane(name, Dataset(spec), IMAGE_STAGES, self.failure_limit, self.description, tuple(self.owners))
