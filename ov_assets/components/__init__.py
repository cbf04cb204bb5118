"""The kinds of things a `defs.yaml` can ask for."""

from ov_assets.components.benchmarks import Benchmarks
from ov_assets.components.external_checkpoint import ExternalCheckpoint
from ov_assets.components.image_dataset import ImageDataset
from ov_assets.components.mixture import Mixture
from ov_assets.components.training_run import TrainingRun
from ov_assets.components.video_dataset import VideoDataset

__all__ = ["Benchmarks", "ExternalCheckpoint", "ImageDataset", "Mixture", "TrainingRun", "VideoDataset"]
