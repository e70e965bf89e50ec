"""The layers of docs/architecture.md hold: an import points down the list, never up."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fastmta.config.schema import leaves

PACKAGE = Path(__file__).parent.parent / "fastmta"

RULES = 2
SERVICES = 3
SOCKETS = 4

#: The first pattern that matches a module's dotted name gives its layer.
LAYERS: tuple[tuple[str, int], ...] = (
    ("_", 0),
    ("model", 0),
    ("runtime", 1),
    ("config", 1),
    ("smtp.session", RULES),
    ("smtp.client", RULES),
    ("smtp.client_login", RULES),
    ("smtp.client_states", RULES),
    ("smtp.offered", RULES),
    ("smtp.conversion", RULES),
    ("smtp.folding", RULES),
    ("smtp.transaction", RULES),
    ("smtp.header_words", RULES),
    ("smtp.transitions", RULES),
    ("smtp.extensions", RULES),
    ("smtp.paths", RULES),
    ("smtp.xclient", RULES),
    ("imap.connection", SOCKETS),
    ("imap.server", SOCKETS),
    ("imap", RULES),
    ("pop3.session", RULES),
    ("queue.scheduler", RULES),
    ("queue.retry", RULES),
    ("queue.concurrency", RULES),
    ("queue.ownership", RULES),
    ("auth.sasl", RULES),
    ("auth.sasl_client", RULES),
    ("auth.sasl_scram", RULES),
    ("auth.sasl_steps", RULES),
    ("auth.scram", RULES),
    ("authentication", SERVICES),
    ("auth", SERVICES),
    ("dns", SERVICES),
    ("tls", SERVICES),
    ("policy", SERVICES),
    ("queue", SERVICES),
    ("store", SERVICES),
    ("trace", SERVICES),
    ("index", SERVICES),
    ("directory", SERVICES),
    ("smtp", SOCKETS),
    ("pop3", SOCKETS),
    ("delivery", SOCKETS),
    ("pickup", SOCKETS),
    ("simulation", 5),
    ("operations", 5),
    ("admin", 6),
    ("cli", 7),
    ("supervisor", 8),
)

#: What the rules of a protocol may not know.
FORBIDDEN_TO_RULES = ("asyncio", "time", "socket", "uvloop", "lmdb", "fastmta.store", "fastmta._store")


def layer_of(module: str) -> int:
    for prefix, layer in LAYERS:
        if module == prefix or module.startswith(prefix + ".") or (prefix == "_" and module.startswith("_")):
            return layer
    raise AssertionError(f"fastmta.{module} stands in no room of the architecture; give it a layer here")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts and parts != ["__main__"]:
            yield ".".join(parts), path


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Modules that `path` imports when it runs: what stands under `if TYPE_CHECKING:` is left out."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other)
            elif isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                yield child.module
                if child.module == "fastmta":
                    yield from (f"fastmta.{alias.name}" for alias in child.names)
            else:
                yield from walk(child)

    return tuple(walk(ast.parse(path.read_text())))


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value).rsplit("/", 1)[-1])
def test_imports_point_down(module: str, path: Path) -> None:
    layer = layer_of(module)
    for name in imports(path):
        if layer == RULES and "." in module:
            assert name.split(".")[0] != "asyncio", f"{module} is rules and imports {name}"
            assert not any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN_TO_RULES), (
                f"{module} is rules and imports {name}"
            )
        if name.startswith("fastmta."):
            target = name.removeprefix("fastmta.")
            assert layer_of(target) <= layer, f"{module} (layer {layer}) imports {target} (layer {layer_of(target)})"


#: What each extension may use of ours: the column "needs" of docs/architecture.md's rooms, closed over what they need.
EXTENSIONS: dict[str, set[str]] = {
    "_parser": {"model"},
    "_mime": {"model"},
    "_imap": {"model", "_mime", "_unit"},
    "_limits": {"model"},
    "_canonical": {"model"},
    "_grams": {"model"},
    "_turns": {"model"},
    "_unit": {"model"},
    "_store": {"model", "_unit"},
    "_intake": {"model", "_unit", "_mime", "_parser"},
    "_session": {"model", "_unit", "_intake", "_mime", "_parser"},
}
_CIMPORT = re.compile(
    r"^\s*(?:from\s+fastmta(?:\.([\w.]+))?\s+c?import\s+\(?([\w]+)|c?import\s+fastmta\.([\w.]+))", re.MULTILINE
)


def extension_imports() -> dict[str, set[str]]:
    """What every .pyx, with its .pxd and .pxi parts, imports or cimports of ours."""
    out: dict[str, set[str]] = {}
    for path in [*PACKAGE.glob("_*.p[yx][xd]"), *PACKAGE.glob("_*_parts/*.p[yx][xdi]")]:
        name = path.stem if path.parent == PACKAGE else path.parent.name.removesuffix("_parts")
        found = {match[1] or match[3] or match[2] for match in _CIMPORT.finditer(path.read_text())}
        out.setdefault(name, set()).update(each for each in found if each != name)
    return out


def test_extensions_import_what_stands_below_them() -> None:
    for name, found in extension_imports().items():
        rooms = {each.partition(".")[0] for each in found}
        assert rooms <= EXTENSIONS[name], f"{name} imports {sorted(rooms - EXTENSIONS[name])}"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Files that import each other round, by Kahn's rule: what remains when all that import nothing left are taken."""
    left = {name: set(found) & graph.keys() for name, found in graph.items()}
    while True:
        done = {name for name, found in left.items() if not found & left.keys()}
        if not done:
            return [sorted(left)] if left else []
        left = {name: found for name, found in left.items() if name not in done}


def test_no_files_import_each_other_round() -> None:
    """Python, .pyx, .pxd and .pxi alike."""
    graph = dict(extension_imports())
    for module, path in modules():
        graph[module] = {name.removeprefix("fastmta.") for name in imports(path) if name.startswith("fastmta.")}
        graph[module].discard(module)
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) != []


def anys(path: Path) -> Iterator[str]:
    """Methods and attributes of a file's ports that take or give Any itself. What is passed on as it came may be of any
    kind (`*arguments`, `**fields`), and so may the values of a dictionary that comes from JSON or goes there.
    """
    text = path.read_text()
    for port in ast.walk(ast.parse(text)) if "Protocol" in text else ():
        if not isinstance(port, ast.ClassDef) or not any(ast.unparse(b).startswith("Protocol") for b in port.bases):
            continue
        for node in ast.walk(port):
            kinds = [node.returns] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
            if isinstance(node, ast.arguments):
                kinds += [each.annotation for each in (*node.posonlyargs, *node.args, *node.kwonlyargs)]
            elif isinstance(node, ast.AnnAssign):
                kinds.append(node.annotation)
            if any(kind is not None and re.fullmatch(r"(Any|.*\| Any|Any \|.*)", ast.unparse(kind)) for kind in kinds):
                yield f"{port.name}: {ast.unparse(node)}"


def test_no_port_has_an_any(tmp_path: Path) -> None:
    """Every typing.Protocol of the package; the ports of the rooms (seams.py) do not name it at all."""
    assert {str(path): found for _, path in modules() if (found := list(anys(path)))} == {}
    for path in PACKAGE.glob("*/seams.py"):
        text = "\n".join(line for line in path.read_text().splitlines() if "import" not in line)
        assert re.findall(r"\bAny\b", text) == [], path
    (tmp_path / "port.py").write_text("class P(Protocol[T]):\n    def a(self, x: Any, *y: Any) -> int: ...\n")
    assert len(list(anys(tmp_path / "port.py"))) == 1


#: Keys that more files than four have reason to name: those who read them, `check`, and the commands that explain.
WIDE_KEYS = frozenset(
    {
        "authserv_id",
        "cert_file",
        "data_directory",
        "key_file",
        "message_size_limit",
        "recipient_delimiter",
        "reply_class_file",
    }
)


def test_a_keys_name_stands_in_at_most_four_files() -> None:
    """A Config is passed down; what is copied field by field has its name in each file on the way. The room config/,
    which declares, reads and checks it, is one of the four.
    """
    lists = {"config/default.py", "config/foreign.py", "config/not_built.py"}  # of all keys there are
    sources = [path for kind in ("*.py", "*.pyx", "*.pxi") for path in PACKAGE.rglob(kind)]
    words = {
        str(path.relative_to(PACKAGE)): set(re.findall(r"\w+", path.read_text()))
        for path in sources
        if str(path.relative_to(PACKAGE)) not in lists
    }
    named = {
        leaf.name: sorted(
            {"config" if file.startswith("config/") else file for file in words if leaf.name in words[file]}
        )
        for leaf in leaves()
        if "_" in leaf.name
    }
    assert {name: files for name, files in named.items() if len(files) > 4 and name not in WIDE_KEYS} == {}


def test_only_dns_imports_dnspython() -> None:
    offenders = [
        m for m, p in modules() if not m.startswith("dns") and any(n.split(".")[0] == "dns" for n in imports(p))
    ]
    assert offenders == []


def test_no_module_is_longer_than_600_lines() -> None:
    sources = [p for s in ("*.py", "*.pyx", "*.pxi") for p in PACKAGE.rglob(s)]
    long = {str(p.relative_to(PACKAGE)): n for p in sources if (n := len(p.read_text().splitlines())) > 600}
    assert long == {}
