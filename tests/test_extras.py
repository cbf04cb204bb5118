"""Optional dependencies say which extra they come with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ov_model.extras import MissingExtra, require


def test_a_missing_module_names_the_extra() -> None:
    require("train", "json", "pathlib")
    with pytest.raises(MissingExtra, match=r"no_such_module not installed; run: pip install 'ov-lake\[train\]'"):
        require("train", "json", "no_such_module")


@pytest.mark.parametrize("package", ["ov_model.encoder", "ov_model.vlm"])
def test_models_without_torch_say_how_to_get_it(package: str) -> None:
    code = (
        "import importlib.util as u, sys\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('torch', 'transformers') else find(name, *rest)\n"
        f"import {package}"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "torch, transformers not installed; run: pip install 'ov-lake[train]'" in result.stderr
