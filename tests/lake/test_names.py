"""File names of ids, stems and keys: ordinary ones are the reference's, any other is safe, reversible and unique."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ov_model.geometry import Geometry
from ov_model.lake.files import folds_case
from ov_model.lake.layout import (
    file_identity,
    is_ordinary,
    key_folder,
    mosaic_name,
    original_name,
    pack_folder,
    safe_name,
    stage1_prefix,
)

TRICKS = [
    "", ".", "..", "../x", "/etc/passwd", "a\0b", "a\nb", ".hidden", "a\\b", "C:\\x", "x" * 300, "é" * 200, "a/b",
    "a%2Fb~5de6a8b0a4d1e3c7", "e\u0301", "\u202egpj.exe", "a\u200bb", "\ufeffa", "a\u2028b", "\ud800", "CON", "con.txt",
    "Aux.x", "nul", "LPT1", "com\u00b9", "name.", "name ", "..%2f", "%", "%00", "~0123456789abcdef",
    "x~0123456789abcd\ufb00", "x~0123456789ABCDEF",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(TRICKS),
    st.text(max_size=400),
    st.text(alphabet="aA.~%/ \0\n0123456789abcdefé\u0301\u200b\u202e", max_size=120),
)


@pytest.mark.parametrize(
    "name",
    [
        "YVQwAEKZpaU",
        "a b",
        "v1.2",
        "ünï",
        "a__b",
        "-x",
        "50%",
        "a%2Fb",
        "x:y",
        "why?",
        "conan",
        "x" * 80,
        "日本語",
        "😀",
    ],
)
def test_ordinary_names_are_the_references(name: str) -> None:
    assert safe_name(name) == name == original_name(name)
    assert key_folder(name) == name
    assert stage1_prefix(f"{name}.mp4", name, 0, Geometry(), 1).startswith(f"sample_{name}__{name}__")


@given(texts)
@example("a%2Fb~" + "0" * 16)
def test_any_name_is_one_part_of_a_path_everywhere(text: str) -> None:
    for name, limit in ((safe_name(text), 80), (key_folder(text), 255)):
        assert len(name.encode()) <= limit
        assert PurePosixPath("root", name).parts == ("root", name)
        assert PureWindowsPath("root", name).parent.name == "root" or ":" in name
        assert not PureWindowsPath(name).is_reserved()
        assert not name.startswith(".")
        assert not name.endswith((".", " "))
        assert all(char.isprintable() or char == " " or char > "~" for char in name)
        assert not set(name) & set("/\\\0\n\u200b\u202e\ufeff\u2028")


@given(texts)
def test_a_name_leads_back_to_its_text_unless_it_was_cut(text: str) -> None:
    assert original_name(key_folder(text)) in (text, None)
    if len(text.encode("utf-8", "surrogatepass")) <= 21:
        assert original_name(safe_name(text)) == text


@given(texts, texts)
@example("a/b", safe_name("a/b"))
@example("e\u0301", "é")
@example("A/B", "a/b")
@example("x" * 300, "x" * 299)
def test_two_texts_never_share_a_name(one: str, other: str) -> None:
    if one == other:
        return
    assert safe_name(one) != safe_name(other)
    if not (is_ordinary(one) and is_ordinary(other)):
        assert file_identity(safe_name(one)) != file_identity(safe_name(other))


@given(texts, texts)
@example("abc", "ABC")
def test_stage_1_files_of_two_samples_differ_on_any_file_system(one: str, other: str) -> None:
    names = [stage1_prefix("v.mp4", text, 0, Geometry(), 1) for text in (one, other)]
    assert one == other or file_identity(names[0]) != file_identity(names[1])


@given(texts, texts)
def test_all_names_of_a_sample_fit_into_a_folder(media: str, sample_id: str) -> None:
    for name in (
        stage1_prefix(media, sample_id, 2**40, Geometry(), 10368) + ".visidx_thw.npy",
        pack_folder(media, sample_id),
        mosaic_name(media, 7),
    ):
        assert len(name.encode()) <= 255
        assert "/" not in name
        assert not PureWindowsPath(name).is_reserved()


def test_a_file_system_that_tells_case_apart_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert folds_case(tmp_path) == (tmp_path / "A").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
