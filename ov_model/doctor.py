"""What this installation can do, and proof that its signals work: `ov doctor`.

A Finding fails only where something that is needed does not work; what is merely not installed is a note that names
what to install.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import av
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ov_model import __version__
from ov_model.lake.workers import RunOptions
from ov_model.proof import ENCODERS, SIGNALS, VELOCITY, Proof, can_encode, prove, vectors_of

Status = Literal["ok", "note", "fail"]

PACKAGES = (
    ("dagster", "dagster"),
    ("dagster-webserver", "dagster"),
    ("torch", "train"),
    ("transformers", "train"),
    ("accelerate", "train"),
    ("deepspeed", "train"),
    ("lmms-eval", "eval"),
    ("ray", "ray"),
    ("dagster-ray", "ray"),
)
"""Optional packages and the extra that brings each."""

_PROJECT = "ov-lake"
_SUPPORTED = ((3, 10), (3, 14))
_NEEDED_DECODER = "h264"
_GIB = 1 << 30
_LOW_DISK = 10 * _GIB
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_STYLES = {"ok": "green", "note": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. area groups findings; advice: what to do, empty where nothing is to be done."""

    area: str
    name: str
    status: Status
    detail: str
    advice: str = ""


def diagnose(*, lake: Path | None = None, dagster_home: Path | None = None) -> list[Finding]:
    """Look at the machine, the video libraries, the accelerator, the packages and the folders.

    Args:
        lake: folder that outputs go to; None takes the current folder.
        dagster_home: where Dagster keeps its runs; None when DAGSTER_HOME is not set.
    """
    return [
        *_machine(lake or Path.cwd()),
        *_video(),
        *_codecs(),
        *_packages(),
        *_accelerator(),
        *_folders(lake or Path.cwd(), dagster_home),
    ]


def proofs() -> list[Finding]:
    """Prove each signal on clips made in a temporary folder."""
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="ov_doctor_") as folder:
        for signal in SIGNALS:
            try:
                findings += [_proved(proof) for proof in prove(signal, Path(folder))]
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"
                advice = "reinstall av and numba at the versions of constraints.txt"
                findings.append(Finding("signals", signal, "fail", detail, advice))
    return findings


def _proved(proof: Proof) -> Finding:
    moved = f"square moved by {VELOCITY} a frame" if proof.pattern == "moving" else "square that changes in place"
    found = [f"{proof.on_path:.0%} of the first-chosen patches on its path", f"{proof.covered:.0%} of its own chosen"]
    if proof.exact is not None:
        found.append(f"vectors exact in {proof.exact:.0%} of the frames")
    advice = "" if proof.ok else "expected 95 % or more each; reinstall av and numba at the versions of constraints.txt"
    detail = f"{proof.codec}, {moved}: {', '.join(found)}"
    return Finding("signals", proof.signal, "ok" if proof.ok else "fail", detail, advice)


def exit_code(findings: list[Finding]) -> int:
    """0 when nothing failed, else 1."""
    return int(any(finding.status == "fail" for finding in findings))


def _machine(lake: Path) -> Iterator[Finding]:
    version, (oldest, newest) = sys.version_info[:2], _SUPPORTED
    supported = oldest <= version < newest
    advice = "" if supported else f"use Python {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1] - 1}"
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("machine", "Python", "ok" if supported else "note", detail, advice)
    yield Finding("machine", _PROJECT, "ok", __version__)
    yield Finding("machine", "cores", "ok", f"{_cores()} usable of {os.cpu_count()}")
    memory, per_worker = _memory(), RunOptions().memory_gb
    workers = int(memory / _GIB / per_worker)
    enough = "" if workers else f"a worker may take {per_worker:g} GiB; lower --memory_gb"
    detail = f"{memory / _GIB:.1f} GiB: {workers} workers at their limit of {per_worker:g} GiB each"
    yield Finding("machine", "memory", "ok" if workers else "note", detail, enough)
    for name, folder in (("disk of the lake", lake), ("disk of temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(_nearest(folder)).free
        low = "" if free >= _LOW_DISK else "make room: mosaics take about 1 MB a video"
        yield Finding("machine", name, "note" if low else "ok", f"{free / _GIB:.1f} GiB free at {folder}", low)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes of main memory, or of the container's limit where that is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path(path) for path in _MEMORY_LIMITS if Path(path).is_file()]
    texts = [path.read_text().strip() for path in limits]
    return min([installed, *(int(text) for text in texts if text.isdigit())])


def _nearest(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _video() -> Iterator[Finding]:
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, av.library_versions[name]))}"
        for name in ("libavcodec", "libavformat", "libswscale")
        if name in av.library_versions
    )
    yield Finding("video", "PyAV", "ok", f"{av.__version__}, FFmpeg {_ffmpeg_version()} ({libraries})")
    for name in ("numba", "opencv-python-headless", "pillow", "polars"):
        yield Finding("video", name, "ok", metadata.version(name))


def _ffmpeg_version() -> str:
    return str(getattr(av, "ffmpeg_version_info", "of unknown version"))


def _codecs() -> Iterator[Finding]:
    """Which codecs decode and which carry vectors, tried on clips made here."""
    with tempfile.TemporaryDirectory(prefix="ov_doctor_") as folder:
        for codec in ENCODERS:
            yield _codec(codec, Path(folder))


def _codec(codec: str, folder: Path) -> Finding:
    if codec not in av.codecs_available:
        status = "fail" if codec == _NEEDED_DECODER else "note"
        return Finding("codecs", codec, status, "no decoder", "install PyAV from its wheel: pip install av")
    if not can_encode(codec):
        return Finding("codecs", codec, "note", "a decoder, not tried: no encoder to make a clip", "")
    try:
        vectors = vectors_of(codec, folder)
    except Exception as error:
        return Finding("codecs", codec, "fail", f"{type(error).__name__}: {error}", "reinstall PyAV from its wheel")
    signals = "motion vectors: residual, motion and reencode" if vectors else "no motion vectors: reencode"
    return Finding("codecs", codec, "ok", f"decodes; {signals}")


def _packages() -> Iterator[Finding]:
    for name, extra in PACKAGES:
        try:
            yield Finding("packages", name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("packages", name, "note", "not installed", _install(extra))


def _install(extra: str, options: str = "") -> str:
    return f"pip install {options}'.[{extra}]' in the project's folder"


def _accelerator() -> Iterator[Finding]:
    if find_spec("torch") is None:
        yield Finding("accelerator", "GPU", "note", "not looked for: no torch", _install("train"))
        return
    torch = _imported("torch")
    if isinstance(torch, Finding):
        yield torch
        return
    cuda = bool(torch.cuda.is_available())
    if cuda:
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            capability = f"compute capability {device.major}.{device.minor}"
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only"
            detail = f"{device.name}, {device.total_memory / _GIB:.0f} GiB, {capability}, {precision}"
            yield Finding("accelerator", f"GPU {index}", "ok", detail)
    else:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding("accelerator", "GPU", "note", f"none that torch can use (torch {torch.__version__}, {built})")
    yield _attention(cuda)
    if find_spec("torchvision") is not None:
        found = _imported("torchvision")
        if isinstance(found, Finding):
            advice = "uninstall torchvision (nothing here needs it) or install the build that matches torch"
            yield Finding("accelerator", "torchvision", "fail", found.detail, advice)


def _attention(cuda: bool) -> Finding:
    kernels = {"flash-attn": "flash_attention_2", "flash-attn-3": "flash_attention_3"}
    found = [f"{kernel} ({_version(name)})" for name, kernel in kernels.items() if _version(name)]
    if found and cuda:
        return Finding("accelerator", "attention", "ok", f"{', '.join(found)} in half precision, else sdpa")
    if found:
        return Finding("accelerator", "attention", "note", f"sdpa; {', '.join(found)} needs a CUDA device")
    advice = _install("flash", "--no-build-isolation ") if cuda else ""
    return Finding("accelerator", "attention", "note" if cuda else "ok", "sdpa (no flash-attn)", advice)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _imported(name: str) -> Any:
    """The module, or the Finding that says why it does not import; a broken build raises all kinds of errors."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        detail = f"is installed but does not import: {type(error).__name__}: {str(error)[:200]}"
        return Finding("accelerator", name, "fail", detail, f"reinstall {name}, or uninstall it")


def _folders(lake: Path, dagster_home: Path | None) -> Iterator[Finding]:
    yield _writable("lake", lake, "choose another folder, or change its owner")
    if dagster_home is None:
        advice = "export DAGSTER_HOME=$PWD/dagster_home, else Dagster forgets its runs"
        yield Finding("folders", "DAGSTER_HOME", "note", "not set", advice)
    elif not dagster_home.is_absolute():
        advice = f"export DAGSTER_HOME={dagster_home.absolute()}"
        yield Finding("folders", "DAGSTER_HOME", "fail", f"{dagster_home} is relative; Dagster refuses it", advice)
    elif not dagster_home.is_dir():
        yield Finding("folders", "DAGSTER_HOME", "fail", f"{dagster_home} is no folder", f"mkdir -p {dagster_home}")
    else:
        yield _writable("DAGSTER_HOME", dagster_home, "change its owner, or set DAGSTER_HOME to another folder")


def _writable(name: str, folder: Path, advice: str) -> Finding:
    """Whether a file can be made in a folder (or in the closest above it that exists)."""
    existing = _nearest(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".ov_doctor_") as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        return Finding("folders", name, "fail", f"{existing} cannot be written to ({error.strerror})", advice)
    where = f"{folder} can be written to" if existing == folder else f"{folder} can be made"
    return Finding("folders", name, "ok", where)


def as_dicts(findings: list[Finding]) -> list[dict[str, str]]:
    """Plain values, for JSON."""
    return [asdict(finding) for finding in findings]


def print_findings(findings: list[Finding], console: Console | None = None) -> None:
    """Print findings as a table by area, with advice, and one line of verdict."""
    console = console or Console()
    table = Table("", "what", "found", "what to do", show_edge=False, pad_edge=False)
    area = ""
    for finding in findings:
        if finding.area != area:
            if area:
                table.add_section()
            area = finding.area
        style = _STYLES[finding.status]
        cells = (finding.name, finding.detail, finding.advice)
        table.add_row(Text(finding.status, style), *map(Text, cells))
    console.print(table)
    count = Counter(finding.status for finding in findings)
    console.print(f"{count['ok']} ok, {count['note']} notes, {count['fail']} failures")
