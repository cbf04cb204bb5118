"""`ov doctor`: what is there is said, what is missing is a note, and a signal that is broken is found out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from rich.console import Console

from ov_model import doctor
from ov_model.codec.coded import CodedResidual
from ov_model.codec.signals import MotionSignal, SignalMaps
from ov_model.doctor import Finding, as_dicts, diagnose, exit_code, print_findings, proofs
from ov_model.proof import ENCODERS, SIGNALS, prove


def by_name(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def distort(monkeypatch: pytest.MonkeyPatch, signal: type, change: Any) -> None:
    """Let a signal's maps pass through `change` on their way out."""
    measure = signal.measure

    def measured(self: Any, *args: Any) -> Iterator[tuple[int, av.VideoFrame, SignalMaps]]:
        for i, frame, maps in measure(self, *args):
            yield i, frame, change(maps)

    monkeypatch.setattr(signal, "measure", measured)


def swap_axes(maps: SignalMaps) -> SignalMaps:
    motion = None if maps.motion_hw2 is None else np.ascontiguousarray(maps.motion_hw2[..., ::-1])
    return replace(maps, motion_hw2=motion)


def turn_over(maps: SignalMaps) -> SignalMaps:
    """Upside down."""
    motion = None if maps.motion_hw2 is None else np.ascontiguousarray(maps.motion_hw2[::-1])
    residual = None if maps.residual_HW is None else np.ascontiguousarray(maps.residual_HW[::-1])
    return replace(maps, motion_hw2=motion, residual_HW=residual)


def drop_residual(maps: SignalMaps) -> SignalMaps:
    return replace(maps, residual_HW=None if maps.residual_HW is None else np.zeros_like(maps.residual_HW))


def test_every_signal_is_proved_here() -> None:
    findings = proofs()
    assert {finding.name for finding in findings} == set(SIGNALS)
    assert [finding.detail for finding in findings if finding.status != "ok"] == []
    assert exit_code(findings) == 0


def test_the_proof_of_reencode_is_on_a_codec_without_vectors(tmp_path: Path) -> None:
    assert {proof.codec for proof in prove("reencode", tmp_path)} == {"hevc"}


@pytest.mark.parametrize(
    ("broken", "change", "failing"),
    [
        (MotionSignal, swap_axes, ["motion"]),
        (MotionSignal, turn_over, ["motion"]),
        (CodedResidual, turn_over, ["residual", "residual"]),
        (CodedResidual, drop_residual, ["residual"]),
    ],
)
def test_a_broken_signal_fails_its_proof(
    monkeypatch: pytest.MonkeyPatch, broken: type, change: Any, failing: list[str]
) -> None:
    distort(monkeypatch, broken, change)
    findings = proofs()
    assert [finding.name for finding in findings if finding.status == "fail"] == failing
    assert exit_code(findings) == 1


def test_a_signal_that_raises_fails_its_proof_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(maps: SignalMaps) -> SignalMaps:
        raise RuntimeError("no kernel image")

    distort(monkeypatch, MotionSignal, explode)
    findings = proofs()
    motion = by_name(findings, "motion")
    assert (motion.status, motion.detail) == ("fail", "RuntimeError: no kernel image")
    assert by_name(findings, "residual").status == "ok"


def test_this_installation_has_nothing_that_fails(tmp_path: Path) -> None:
    findings = diagnose(lake=tmp_path / "lake", dagster_home=tmp_path)
    assert [finding for finding in findings if finding.status == "fail"] == []
    assert {finding.area for finding in findings} == {
        "machine", "video", "codecs", "packages", "accelerator", "folders",
    }  # fmt: skip
    assert by_name(findings, "PyAV").detail.startswith(av.__version__)
    assert by_name(findings, "lake").detail.endswith("can be made")
    assert not (tmp_path / "lake").exists()


def test_codecs_with_motion_vectors_are_told_from_those_without() -> None:
    findings = {finding.name: finding.detail for finding in diagnose() if finding.area == "codecs"}
    assert set(findings) == set(ENCODERS)
    carrying = {name for name, detail in findings.items() if "decodes; motion vectors" in detail}
    assert carrying == {"h264", "mpeg4", "mpeg2video"}


def test_a_decoder_that_is_not_there_is_a_note_but_h264_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"hevc", "vp9"})
    found = {finding.name: finding.status for finding in diagnose() if finding.area == "codecs"}
    assert found["h264"] == "fail"
    assert found["av1"] == "note"
    assert found["hevc"] == "note"


def test_a_missing_package_is_a_note_that_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name in dict(doctor.PACKAGES):
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = [finding for finding in diagnose() if finding.area == "packages"]
    assert {finding.status for finding in findings} == {"note"}
    assert "'.[train]'" in by_name(findings, "deepspeed").advice
    assert "'.[eval]'" in by_name(findings, "lmms-eval").advice
    assert exit_code(findings) == 0


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lake = by_name(diagnose(lake=tmp_path / "file" / "lake"), "lake")
    assert lake.status == "fail"
    assert "cannot be written" in lake.detail


@pytest.mark.parametrize(
    ("home", "status", "advice"),
    [(None, "note", "export DAGSTER_HOME"), (Path("relative"), "fail", "export"), (Path("/no/such"), "fail", "mkdir")],
)
def test_dagster_home_is_looked_at(home: Path | None, status: str, advice: str) -> None:
    finding = by_name(diagnose(dagster_home=home), "DAGSTER_HOME")
    assert finding.status == status
    assert advice in finding.advice


def pretend(monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any]) -> None:
    """Let only these optional modules be importable; an exception is raised on import."""

    known = doctor.importlib.import_module

    def load(name: str, package: str | None = None) -> Any:
        module = modules[name] if name in modules else known(name, package)
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(doctor, "find_spec", lambda name: modules.get(name))
    monkeypatch.setattr(doctor.importlib, "import_module", load)


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(name="H100", total_memory=80 << 30, major=9, minor=0)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_properties=lambda index: device,
        is_bf16_supported=lambda: True,
    )
    pretend(monkeypatch, {"torch": SimpleNamespace(cuda=cuda)})
    finding = by_name(diagnose(), "GPU 0")
    assert finding.detail == "H100, 80 GiB, compute capability 9.0, bfloat16"


def test_a_torchvision_that_does_not_import_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False), version=SimpleNamespace(cuda=None), __version__="2.13.0"
    )
    broken = RuntimeError("operator torchvision::nms does not exist")
    pretend(monkeypatch, {"torch": torch, "torchvision": broken})
    findings = diagnose()
    assert by_name(findings, "GPU").detail == "none that torch can use (torch 2.13.0, built without CUDA)"
    assert by_name(findings, "torchvision").status == "fail"
    assert "torchvision::nms" in by_name(findings, "torchvision").detail


def test_a_torch_that_does_not_import_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"torch": OSError("libcudart.so.12: cannot open shared object file")})
    assert by_name([f for f in diagnose() if f.area == "accelerator"], "torch").status == "fail"


def test_printing_shows_status_and_advice() -> None:
    findings = [Finding("packages", "ray", "note", "not installed", "pip install '.[ray]'")]
    console = Console(record=True, width=120, file=open(os.devnull, "w"))
    print_findings(findings, console)
    text = console.export_text()
    assert "pip install '.[ray]'" in text
    assert "0 ok, 1 notes, 0 failures" in text
    assert json.loads(json.dumps(as_dicts(findings)))[0]["status"] == "note"
