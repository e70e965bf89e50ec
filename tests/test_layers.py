"""The layers of docs/architecture.md hold: an import points down the list, never up."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    ("authentication", SERVICES),
    ("auth", SERVICES),
    ("dns", SERVICES),
    ("tls", SERVICES),
    ("policy", SERVICES),
    ("queue", SERVICES),
    ("store", SERVICES),
    ("directory", SERVICES),
    ("smtp", SOCKETS),
    ("pop3", SOCKETS),
    ("delivery", SOCKETS),
    ("pickup", SOCKETS),
    ("admin", 5),
    ("cli", 6),
    ("supervisor", 7),
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


def imports(path: Path) -> Iterator[str]:
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

    yield from walk(ast.parse(path.read_text()))


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


def test_only_dns_imports_dnspython() -> None:
    offenders = [
        m for m, p in modules() if not m.startswith("dns") and any(n.split(".")[0] == "dns" for n in imports(p))
    ]
    assert offenders == []


def test_no_module_is_longer_than_600_lines() -> None:
    sources = [p for s in ("*.py", "*.pyx", "*.pxi") for p in PACKAGE.rglob(s)]
    long = {str(p.relative_to(PACKAGE)): n for p in sources if (n := len(p.read_text().splitlines())) > 600}
    assert long == {}
