"""`VideoDataset`: a raw dataset of videos (images and text rows may be among them) as a lane of assets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ov_assets.components.dataset_component import DatasetComponent
from ov_assets.components.lane import Lane
from ov_assets.components.stages import VIDEO_STAGES
from ov_model.codec.choose import ChooseOptions
from ov_model.codec.energy import EnergyOptions
from ov_model.codec.select import SelectOptions
from ov_model.codec.signals import SignalOptions
from ov_model.geometry import Geometry
from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.mosaic.write import PackOptions


class GeometryAttributes(dg.Model, dg.Resolvable):
    """Frames sampled, mosaics per video, square side and patch side in pixels; unset: the published ones."""

    sequence_length: int | None = None
    num_images: int | None = None
    square_size: int | None = None
    patch_size: int | None = None


class VideoDataset(DatasetComponent):
    """Raw videos -> visidx -> mosaics -> training JSONL.

    The options of the stages are called as the flags of `ov stage1` and mean the same; unset, the library's
    default holds. A changed option makes the assets of this dataset stale, and materializing them does what
    the option changes.
    """

    signal: Literal["auto", "residual", "motion", "reencode"] | None = None
    intra: Literal["coded", "contrast", "zero"] | None = None
    normalize: Literal["frame", "clip"] | None = None
    padding_policy: Literal["exclude", "zero", "repeat"] | None = None
    keep_first_full_frame: bool | None = None
    keep_uniform_first: bool | None = None
    sample_start_offset: int | None = None
    fuse_mode: Literal["weighted", "max", "sum", "geomean"] | None = None
    mv_compensate: Literal["none", "median", "mean"] | None = None
    mv_pct: float | None = None
    res_pct: float | None = None
    w_mv: float | None = None
    w_res: float | None = None
    res_use_grad: bool | None = None
    apply_sar: bool | None = None
    damaged: Literal["keep", "fail"] | None = None
    allowed_codecs: Sequence[str] = ()
    jpeg_quality: int | None = None
    geometry: GeometryAttributes = GeometryAttributes()

    def lane(self, name: str, project: Path) -> Lane:
        spec = DatasetSpec(
            name=name,
            **self._placement(name, project),
            choose=self._choose_options(),
            pack=PackOptions(geometry=self._geometry(), **self._given(PackOptions, {"jpeg_quality"})),
        )
        return Lane(name, Dataset(spec), VIDEO_STAGES, self.failure_limit, self.description, tuple(self.owners))

    def _geometry(self) -> Geometry:
        return Geometry(**self.geometry.model_dump(exclude_none=True))

    def _choose_options(self) -> ChooseOptions:
        policy = self.padding_policy or SelectOptions().padding_policy
        return ChooseOptions(
            geometry=self._geometry(),
            signals=SignalOptions(**self._given(SignalOptions)),
            energy=EnergyOptions(**self._given(EnergyOptions)),
            select=SelectOptions.resolve(policy, self.keep_first_full_frame, self.keep_uniform_first),
            **self._given(ChooseOptions, {"signal", "sample_start_offset", "apply_sar", "damaged"}),
            allowed_codecs=tuple(self.allowed_codecs),
        )

    def _given(self, options: type, names: AbstractSet[str] | None = None) -> dict[str, Any]:
        """The attributes that were set and are fields (of these names) of a library's options."""
        fields = {field.name for field in dataclasses.fields(options)} & self.model_fields_set
        return {name: getattr(self, name) for name in fields & (names or fields)}
