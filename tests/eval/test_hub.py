"""The hub's side of a preparation, against a server on this machine: access, faults, and downloads that go on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ov_model.eval.archives import DiskFull
from ov_model.eval.benchmarks import find_benchmark
from ov_model.eval.hub import AccessError, Hub, HubError
from tests.eval.hub import TOKEN, LocalHub, hub

VIDEOMME = find_benchmark("videomme")
DATA = bytes(range(256)) * 100
FILES = {"README.md": b"# small", "videos_chunked_01.zip": DATA, "videomme/test.parquet": b"rows"}


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub() as running:
        running.put("lmms-eval/Video-MME", FILES)
        yield running


def client(local: LocalHub, *, token: str | None = None, retries: int = 2) -> Hub:
    return Hub(token, endpoint=local.url, retries=retries, wait=0.01)


def fetch(caller: Hub, target: Path) -> int:
    repository = caller.repository(VIDEOMME, "main")
    return caller.fetch(repository, repository.select(("*.zip",))[0], target)


def test_a_file_arrives_whole_and_is_not_fetched_twice(local: LocalHub, tmp_path: Path) -> None:
    caller = client(local)
    assert fetch(caller, tmp_path / "x.zip") == len(DATA)
    assert (tmp_path / "x.zip").read_bytes() == DATA
    assert fetch(caller, tmp_path / "x.zip") == 0
    assert local.downloads() == ["videos_chunked_01.zip"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_cut_connection_is_taken_up_where_it_broke(local: LocalHub, tmp_path: Path) -> None:
    local.cut("*.zip", after=10_000, times=1)
    fetch(client(local), tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == DATA
    assert local.requests[-1][2] == "bytes=10000-"


def test_what_came_before_a_failure_is_kept_for_the_next_call(local: LocalHub, tmp_path: Path) -> None:
    local.cut("*.zip", after=10_000, times=1)
    local.fail("*.zip", 500, skip=1)
    with pytest.raises(HubError, match="goes on from here"):
        fetch(client(local, retries=0), tmp_path / "x.zip")
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [10_000]
    local.heal()
    assert fetch(client(local), tmp_path / "x.zip") == len(DATA) - 10_000
    assert (tmp_path / "x.zip").read_bytes() == DATA


def test_other_content_of_the_same_name_starts_anew(local: LocalHub, tmp_path: Path) -> None:
    fetch(client(local), tmp_path / "x.zip")
    local.put("lmms-eval/Video-MME", {**FILES, "videos_chunked_01.zip": DATA[::-1]})
    assert fetch(client(local), tmp_path / "x.zip") == len(DATA)
    assert (tmp_path / "x.zip").read_bytes() == DATA[::-1]


def test_content_that_is_not_what_was_announced_is_thrown_away(
    local: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = client(local)
    repository = caller.repository(VIDEOMME, "main")
    commit = local.repos["lmms-eval/Video-MME"].at(repository.commit)
    assert commit is not None
    monkeypatch.setitem(commit.files, "videos_chunked_01.zip", DATA[::-1])
    with pytest.raises(HubError, match="not what the hub announced"):
        caller.fetch(repository, repository.select(("*.zip",))[0], tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes_is_waited_out(local: LocalHub, tmp_path: Path, status: int) -> None:
    local.fail("/api/datasets/*", status, times=2, retry_after=0)
    fetch(client(local), tmp_path / "x.zip")
    assert (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "answers 404"),
        (429, "too many requests.*higher limit"),
        (500, "answers 500 after 2 tries"),
        (403, "hf auth login"),
    ],
)
def test_a_fault_that_stays_says_what_to_do(local: LocalHub, status: int, words: str) -> None:
    local.fail("/api/datasets/*", status, retry_after=0)
    with pytest.raises(HubError, match=words):
        client(local, retries=1).repository(VIDEOMME, "main")


def test_a_file_that_is_gone_from_its_revision_is_named(local: LocalHub, tmp_path: Path) -> None:
    caller = client(local)
    repository = caller.repository(VIDEOMME, "main")
    del local.repos["lmms-eval/Video-MME"].commits[repository.commit].files["videos_chunked_01.zip"]
    with pytest.raises(HubError, match=r"videos_chunked_01\.zip: .* answers 404"):
        caller.fetch(repository, repository.select(("*.zip",))[0], tmp_path / "x.zip")


def test_a_hub_that_is_not_there_is_named() -> None:
    with pytest.raises(HubError, match=r"the connection to http://127\.0\.0\.1:9 failed 2 times"):
        Hub(None, endpoint="http://127.0.0.1:9", retries=1, wait=0.01).repository(VIDEOMME, "main")


@pytest.mark.parametrize(("token", "who"), [(None, "a caller without a token"), ("hf_other", "this token's account")])
def test_a_gated_data_set_names_the_page_and_the_command(local: LocalHub, token: str | None, who: str) -> None:
    local.put("lmms-eval/Video-MME", FILES, gated=True)
    with pytest.raises(AccessError) as caught:
        client(local, token=token).repository(VIDEOMME, "main")
    for words in (who, f"{local.url}/datasets/lmms-eval/Video-MME", "hf auth login", "HF_TOKEN", "prepare videomme"):
        assert words in str(caught.value)
    assert not local.downloads()


def test_accepted_terms_open_a_gated_data_set(local: LocalHub, tmp_path: Path) -> None:
    local.put("lmms-eval/Video-MME", FILES, gated=True).accepted.add(TOKEN)
    assert fetch(client(local, token=TOKEN), tmp_path / "x.zip") == len(DATA)


def test_a_data_set_that_moved_is_followed(local: LocalHub, tmp_path: Path) -> None:
    local.repos["new/Name"] = local.repos.pop("lmms-eval/Video-MME")
    local.repos["new/Name"].name = "new/Name"
    local.move("lmms-eval/Video-MME", "new/Name")
    caller = client(local)
    assert caller.repository(VIDEOMME, "main").name == "new/Name"
    assert fetch(caller, tmp_path / "x.zip") == len(DATA)


def test_a_hub_that_knows_only_a_former_name_is_served_by_it(local: LocalHub) -> None:
    local.repos["lmms-lab/Video-MME"] = local.repos.pop("lmms-eval/Video-MME")
    local.repos["lmms-lab/Video-MME"].name = "lmms-lab/Video-MME"
    assert client(local).repository(VIDEOMME, "main").name == "lmms-lab/Video-MME"


def test_no_data_set_of_any_name_lists_the_names(local: LocalHub) -> None:
    local.repos.clear()
    with pytest.raises(HubError, match=r"no data set lmms-eval/Video-MME or lmms-lab/Video-MME.*hf auth login"):
        client(local).repository(VIDEOMME, "main")


def test_an_unknown_revision_is_named(local: LocalHub) -> None:
    with pytest.raises(HubError, match="no revision 'nope'"):
        client(local).repository(VIDEOMME, "nope")


def test_a_full_disk_is_named_and_what_came_is_kept(local: LocalHub, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ov_model.eval.hub import Hub; "
        "from ov_model.eval.benchmarks import find_benchmark as find; "
        "hub = Hub(None, endpoint=sys.argv[1]); found = hub.repository(find('videomme'), 'main'); "
        "hub.fetch(found, found.select(('*.zip',))[0], Path(sys.argv[2]) / 'x.zip')"
    )
    mount = shutil.which("unshare")
    script = 'mount -t tmpfs -o size=16k tmpfs "$1" || exit 77; "$2" -c "$3" "$4" "$1"; code=$?; ls -A "$1"; exit $code'
    if mount is None:
        pytest.skip("no unshare: cannot mount a small tmpfs")
    done = subprocess.run(
        [mount, "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code, local.url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("mounting a tmpfs is not allowed here")
    assert DiskFull.__name__ in done.stderr, done.stderr
    assert "run the same command to go on" in done.stderr
    assert ".partial" in done.stdout
