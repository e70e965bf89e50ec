"""What the documents name exists: files, modules, decisions, links, commands with their options, and every word in code
marks that looks like a key, a metric, a function or a constant.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from fastmta.cli.main import COMMANDS, fastmta

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "fastmta"
DOCUMENTS = sorted([
    *REPOSITORY.glob("*.md"),
    *REPOSITORY.glob("docs/*.md"),
    *REPOSITORY.glob("fastmta/*/README.md"),
    REPOSITORY / "bench" / "README.md",
])  # fmt: skip
DECISIONS = sorted(REPOSITORY.glob("docs/adr/*.md"))
SOURCES = ("fastmta", "bench", "tests", "deploy")
#: Words of other programs, and placeholders.
FOREIGN = {"DATA_DIRECTORY", "lmdb_api_v09", "ams_fields_c_na"}
_MARKED = re.compile(r"`([^`\n]+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@cache
def words() -> frozenset[str]:
    """Every identifier in the sources; a metric's name has its prefix, and an operation of the store its own."""
    found: set[str] = set()
    paths = [path for folder in SOURCES for path in (REPOSITORY / folder).rglob("*") if path != Path(__file__)]
    for path in [*paths, REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml", REPOSITORY / "setup.py"]:
        found.add(path.stem)
        if path.is_file() and path.suffix not in (".so", ".pyc", ".xz", ".eml", ".md", ".html"):
            found |= set(re.findall(r"[A-Za-z]\w*", path.read_bytes().decode("utf-8", "replace")))
    return frozenset(found | {f"fastmta_{word}" for word in found} | {word.removeprefix("OP_") for word in found})


def unknown(text: str) -> Iterator[str]:
    """What stands in a text's code marks and is nowhere."""
    for marked in _MARKED.findall(text):
        for word in re.findall(r"(?<![\w/.$-])[A-Za-z][A-Za-z0-9]*_\w*[A-Za-z0-9](?![\w*]|_\*)", marked):
            if word not in words() and word not in FOREIGN:
                yield word
        for path in re.findall(r"(?<![\w/.])((?:tests|bench|docs)/[\w/.-]*\w)", marked):
            if "NNNN" not in path and not any((REPOSITORY / f"{path}{kind}").exists() for kind in ("", ".py")):
                yield path
        for path in re.findall(r"(?<![\w/.])([a-z_]+/[a-z_/]+)(?=\.py|[:`]|$)", marked):
            extension, _, part = path.partition("/")
            if extension.startswith("_"):
                if not (PACKAGE / f"{extension.removesuffix('_parts')}_parts" / f"{part}.pxi").exists():
                    yield path
            elif (PACKAGE / extension).is_dir() and not any(
                (PACKAGE / f"{path}{kind}").exists() for kind in ("", ".py")
            ):
                yield path


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_what_a_document_names_exists(path: Path) -> None:
    assert list(unknown(path.read_text())) == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *DECISIONS], ids=name_of)
def test_decisions_and_links_exist(path: Path) -> None:
    text = path.read_text()
    decisions = {each.name[:4] for each in DECISIONS}
    assert set(re.findall(r"adr/(\d{4})", text)) <= decisions
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (path.parent / link).exists()] == []


def test_the_list_of_decisions_is_whole() -> None:
    listed = re.findall(r"\]\(((\d{4})-[^)]+)\)", (REPOSITORY / "docs" / "adr" / "README.md").read_text())
    assert sorted(name for name, _ in listed) == [path.name for path in DECISIONS if path.name != "README.md"]
    assert all(name.startswith(number) for name, number in listed)


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of `fastmta` in a text: in code marks, and in blocks of a shell."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.splitlines()] + _MARKED.findall(re.sub(r"```.*?```", "", text))
    for line in re.split(r"\n| && | \| |; ", "\n".join(lines)):
        if match := re.match(r"(?:sudo )?fastmta ([a-z].*)", line.partition("  #")[0].strip()):
            yield re.split(r"\s+|(?<=\w)/(?=\w)", match[1].strip())


def wrong(line: list[str]) -> str:
    """Why there is no such command line; "" where there is one."""
    if line[0] not in COMMANDS:
        return f"no command {line[0]}"
    context = click.Context(fastmta)
    found: click.Command | None = fastmta.get_command(context, line[0])
    rest = line[1:]
    while isinstance(found, click.Group) and rest and re.fullmatch(r"[a-z-]+", rest[0]):
        inner = found.get_command(click.Context(found), rest[0])
        if inner is None:
            return f"no command {' '.join(line)}"
        found, rest = inner, rest[1:]
    assert found is not None
    if isinstance(found, click.Group):
        return ""
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    missing = [word for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(rest)) if word not in known]
    return f"{' '.join(line)}: {missing}" if missing else ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_of_a_document_exist(path: Path) -> None:
    assert [problem for line in commands(path.read_text()) if (problem := wrong(line))] == []


def test_the_messages_of_the_channel_are_those_that_its_header_lists() -> None:
    header = (PACKAGE / "supervisor" / "channel.py").read_text().split('"""')[1]
    from_supervisor, from_worker = header.partition("From the worker")[::2]
    worker = (PACKAGE / "supervisor" / "worker.py").read_text()
    handled = worker.partition("def _handle")[2].partition("async def _ask")[0]
    assert set(re.findall(r"`(\w+)`", from_supervisor)) == set(re.findall(r'case "(\w+)"', handled))
    assert set(re.findall(r"`(\w+)`", from_worker)) == set(re.findall(r'_channel\.send\("(\w+)"', worker))


def test_what_is_wrong_would_be_found() -> None:
    text = "`no_such_key` `docs/none.md` `smtp/none:x` `_session/none` `fastmta queue lose` `fastmta queue hold --what`"
    assert list(unknown(text)) == ["no_such_key", "docs/none.md", "smtp/none", "_session/none"]
    assert [wrong(line) for line in commands(text)] == ["no command queue lose", "queue hold --what: ['--what']"]
