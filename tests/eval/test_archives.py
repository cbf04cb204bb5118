"""Archives: unpacked where they belong, resumably; what must not be unpacked is refused before anything is written."""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ov_model.eval.archives import ArchiveError, DiskFull, Limits, extract, group_archives, safe_path
from tests.eval.fixtures import tarred, zipped

FILES = {"data/a.mp4": b"a" * 3000, "data/deep/b.mp4": b"b" * 5000, "c.txt": b""}


def put(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "pack"),
    [("x.zip", zipped), ("x.tar", tarred), ("x.tar.gz", lambda files: gzip.compress(tarred(files)))],
)
def test_members_lie_where_their_paths_say(tmp_path: Path, name: str, pack: Callable[..., bytes]) -> None:
    members = extract([put(tmp_path, name, pack(FILES))], tmp_path / "out")
    assert found(tmp_path / "out") == FILES
    assert {member.path: member.size for member in members} == {path: len(data) for path, data in FILES.items()}


@pytest.mark.parametrize("cut", [100, 512, 3333, 6000])
def test_an_archive_cut_in_pieces_is_read_as_one(tmp_path: Path, cut: int) -> None:
    data = tarred(FILES)
    parts = [
        put(tmp_path, f"videos.tar.part.{n}", piece)
        for n, piece in zip(("aa", "ab"), (data[:cut], data[cut:]), strict=True)
    ]
    extract(parts, tmp_path / "out")
    assert found(tmp_path / "out") == FILES
    assert not (tmp_path / "videos.tar").exists()


def test_numbered_archives_are_pieces_or_whole_by_what_they_begin_with(tmp_path: Path) -> None:
    data = tarred(FILES)
    pieces = [put(tmp_path, "p_1.tar", data[:700]), put(tmp_path, "p_2.tar", data[700:])]
    whole = [put(tmp_path, f"w_{i}.tar", tarred({path: content})) for i, (path, content) in enumerate(FILES.items())]
    extract(pieces, tmp_path / "pieces")
    extract(whole, tmp_path / "whole")
    assert found(tmp_path / "pieces") == found(tmp_path / "whole") == FILES


def test_parts_are_grouped_in_order() -> None:
    names = ["a.zip", "v.tar.part.ab", "v.tar.part.aa", "n_10.tar", "n_2.tar", "x/t.tar.gz", "b.zip"]
    assert group_archives(names) == {
        "a.zip": ["a.zip"],
        "b.zip": ["b.zip"],
        "n.tar": ["n_2.tar", "n_10.tar"],
        "v.tar": ["v.tar.part.aa", "v.tar.part.ab"],
        "x/t.tar.gz": ["x/t.tar.gz"],
    }


def test_a_file_that_lies_there_whole_is_not_written_again(tmp_path: Path) -> None:
    archive, out = put(tmp_path, "x.zip", zipped(FILES)), tmp_path / "out"
    extract([archive], out)
    (out / "data/a.mp4").write_bytes(b"short")
    os.utime(out / "data/deep/b.mp4", ns=(1, 1))
    extract([archive], out)
    assert found(out) == FILES
    assert (out / "data/deep/b.mp4").stat().st_mtime_ns == 1


def test_what_an_earlier_archive_gave_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([put(tmp_path, "x.zip", zipped({"a": b"first"}))], out)
    members = extract([put(tmp_path, "y.zip", zipped({"a": b"second", "b": b"b"}))], out, taken={"a"})
    assert found(out) == {"a": b"first", "b": b"b"}
    assert [member.path for member in members] == ["b"]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("path", ["../evil", "a/../../evil", "/etc/evil", "C:\\evil", "..\\evil", "a/.."])
def test_a_member_that_leads_out_stops_all(tmp_path: Path, pack: Callable[..., bytes], path: str) -> None:
    archive = put(tmp_path, "x.zip" if pack is zipped else "x.tar", pack({"good": b"1", path: b"2"}))
    with pytest.raises(ArchiveError, match="leads out of the folder"):
        extract([archive], tmp_path / "out")
    assert found(tmp_path) == {archive.name: archive.read_bytes()}


@given(st.text("./\\aC:\0-", max_size=12))
def test_a_path_is_safe_or_refused(name: str) -> None:
    try:
        path = safe_path(name, "x.zip")
    except ArchiveError:
        return
    assert os.path.normpath(f"/out/{path}").startswith("/out")


def _tar_with(kind: bytes, link: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("inside")
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"'inside' is a (link|device)"):
        extract([put(tmp_path, "x.tar", _tar_with(kind, "/etc/passwd"))], tmp_path / "out")
    assert not found(tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("inside")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc")
    with pytest.raises(ArchiveError, match="'inside' is a link"):
        extract([tmp_path / "x.zip"], tmp_path / "out")


def test_nothing_is_written_through_a_link_that_lies_in_the_folder(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "data").symlink_to(elsewhere)
    with pytest.raises(ArchiveError, match="through a link"):
        extract([put(tmp_path, "x.zip", zipped({"data/a": b"1"}))], out)
    assert not found(elsewhere)


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_an_archive_that_promises_too_much_is_refused_at_once(tmp_path: Path, form: str) -> None:
    zeros = b"\0" * (100 << 20)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", zeros)
    else:
        put(tmp_path, "x.tar.gz", gzip.compress(tarred({"zeros": zeros}), 1))
    with pytest.raises(ArchiveError, match="more than the"):
        extract([tmp_path / f"x.{form}"], tmp_path / "out")
    assert not found(tmp_path / "out")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    archive = put(tmp_path, "x.zip", zipped({str(i): b"" for i in range(11)}))
    with pytest.raises(ArchiveError, match="10 files that are allowed"):
        extract([archive], tmp_path / "out", limits=Limits(files=10))


def test_a_member_that_is_bigger_than_it_says_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"x" * 1000}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(ArchiveError):
        extract([put(tmp_path, "x.zip", bytes(data))], tmp_path / "out")
    assert not found(tmp_path / "out")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("damage", ["no archive", "cut", "empty"])
def test_an_unreadable_archive_says_how_to_get_it_again(tmp_path: Path, name: str, damage: str) -> None:
    whole = {"x.zip": zipped, "x.tar": tarred, "x.tar.gz": lambda files: gzip.compress(tarred(files))}[name](FILES)
    data = {"no archive": b"<html>sorry</html>" * 99, "cut": whole[: len(whole) // 3], "empty": b""}[damage]
    archive = put(tmp_path, name, data)
    with pytest.raises(ArchiveError, match=f"cannot be read as an archive.*rm {archive}"):
        extract([archive], tmp_path / "out")
    assert not found(tmp_path / "out")


def test_a_wrong_checksum_is_found_and_the_file_not_kept(tmp_path: Path) -> None:
    data = bytearray(zipped({"good": b"1" * 100, "bad": b"2" * 100}))
    at = data.index(b"2" * 100)
    data[at] ^= 1
    with pytest.raises(ArchiveError, match="CRC"):
        extract([put(tmp_path, "x.zip", bytes(data))], tmp_path / "out")
    assert found(tmp_path / "out") == {"good": b"1" * 100}


def test_one_path_twice_with_different_sizes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"22")
    with pytest.raises(ArchiveError, match="'a' twice"):
        extract([tmp_path / "x.zip"], tmp_path / "out")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="a file and a folder"):
        extract([put(tmp_path, "x.tar", tarred({"a": b"1", "a/b": b"2"}))], tmp_path / "out")


@pytest.mark.parametrize("sensitive", [True, False])
def test_names_that_differ_in_case_only_need_a_disk_that_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sensitive: bool
) -> None:
    monkeypatch.setattr("ov_model.eval.archives.case_sensitive", lambda folder: sensitive)
    archive = put(tmp_path, "x.zip", zipped({"Ab.mp4": b"1", "aB.mp4": b"2"}))
    if sensitive:
        assert len(extract([archive], tmp_path / "out")) == 2
    else:
        with pytest.raises(ArchiveError, match=r"'Ab.mp4' and 'aB.mp4' differ in case only"):
            extract([archive], tmp_path / "out")


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 4000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match=r"needs 0\.00 GB"):
        extract([put(tmp_path, "x.zip", zipped(FILES))], tmp_path / "out")
    assert not found(tmp_path / "out")


def test_a_write_that_fails_for_want_of_room_keeps_what_was_whole_and_goes_on_later(tmp_path: Path) -> None:
    archive = put(tmp_path, "x.tar", tarred({"small": b"1" * 1000, "big": b"2" * 9000}))
    code = (
        "import sys; from pathlib import Path; from ov_model.eval.archives import extract; "
        "extract([Path(sys.argv[1])], Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive), str(tmp_path / "out")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "DiskFull" in done.stderr
    assert "run the same command to go on" in done.stderr
    assert found(tmp_path / "out") == {"small": b"1" * 1000}
    extract([archive], tmp_path / "out")
    assert len(found(tmp_path / "out")["big"]) == 9000
