"""What the sources must not do: run code from data, listen beyond this machine, lean on packages with known holes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
SOURCES = sorted(path for name in ("ov_model", "ov_assets", ".ci") for path in (ROOT / name).rglob("*.py"))


def dangers(source: str) -> Iterator[str]:
    """Lines of a source that run code from data, start a shell, unpack blindly, or listen on every address."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in PICKLERS)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"(\w+://)?(0\.0\.0\.0|\[::\])(:\d+)?", node.value):
                yield f"{node.lineno}: {node.value} is every address"
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {told}" for told in _call(node))


def _call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called.endswith("torch.load") and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        yield "np.load without allow_pickle=False"
    if given.get("allow_pickle", "False") != "False":
        yield "allow_pickle"
    if given.get("trust_remote_code", "False") != "False":
        yield "trust_remote_code"
    if given.get("shell", "False") != "False" or called in ("os.system", "os.popen"):
        yield "a shell"
    if called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp"):
        yield called
    if called.endswith((".extractall", ".unpack_archive")):
        yield f"{called}: archives are unpacked by ov_model.eval.archives, member by member"
    if called.endswith("Image.open") and "formats" not in given and not _in_memory(node):
        yield "Image.open: pictures are opened by ov_model.image_files, under a limit"


def _in_memory(node: ast.Call) -> bool:
    """Whether a picture is read from bytes that we made ourselves."""
    return bool(node.args) and re.fullmatch(r"stream|(io\.)?BytesIO\(.*\)", ast.unparse(node.args[0])) is not None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_does_what_is_dangerous(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.save(path, x, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "yaml.load(text)",
        "tar.extractall(folder)",
        "Image.open(path)",
        "HTTPServer(('0.0.0.0', 80), Handler)",
        "url = 'tcp://0.0.0.0:5000'",
    ],
)
def test_dangers_are_seen(source: str) -> None:
    assert len(list(dangers(source))) == 1


def test_servers_that_are_started_here_listen_on_this_machine_only() -> None:
    """Of the Makefile, the documents and the instance; in compose, containers listen on a network of their own."""
    texts = [
        ROOT / "Makefile",
        ROOT / "dagster_home" / "dagster.yaml",
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
    ]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:--host|-h|--bind_all|--dashboard-host)[ =]*(?:0\.0\.0\.0|::)", text), path
        for command in re.findall(r"(?:dagster dev|dagster-webserver|ray start --head)[^\n`]*", text):
            assert path.suffix == ".md" or "127.0.0.1" in command, f"{path}: {command}"
    assert "dagster dev -h 127.0.0.1 " in (ROOT / "Makefile").read_text()


def test_the_pins_are_on_no_list_of_weaknesses(tmp_path: Path) -> None:
    audit = [sys.executable, str(ROOT / ".ci" / "audit.py")]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    older = tmp_path / "constraints.txt"
    older.write_text("# pins\nPillow==10.2.0\nray==2.60.0\ntorch==2.6.0\n")
    done = subprocess.run([*audit, str(older)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == ["Pillow 10.2.0"]


def test_the_audit_is_part_of_the_checks() -> None:
    assert ".ci/audit.py" in (ROOT / ".ci" / "run").read_text()
