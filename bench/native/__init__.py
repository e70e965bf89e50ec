"""The cheap load generator and sink in C: what a message costs beside them is the server's, not the tool's.

Built with the machine's compiler when first asked for, into `build/bench/`, and again when the source is newer.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).resolve().parent
BUILT = SOURCES.parents[1] / "build" / "bench"
RUN_TIMEOUT_S = 600


class Load(NamedTuple):
    """What one run of the generator was: `cpu_s` is the generator's own."""

    messages: int
    elapsed_s: float
    cpu_s: float


def tool(name: str) -> Path:
    """The built program `name`; raises SystemExit with the compiler's words where it cannot be built."""
    return _built(name, BUILT / name, [])


def library(name: str) -> Path:
    """The same for a shared library, to be loaded before others."""
    return _built(name, BUILT / f"{name}.so", ["-shared", "-fPIC"])


def tls_sink() -> Path:
    """The sink with STARTTLS, which needs the headers of OpenSSL."""
    return _built("smtp_sink", BUILT / "smtp_sink_tls", ["-DWITH_TLS"], ["-lssl", "-lcrypto"])


def _built(name: str, product: Path, how: list[str], libraries: Sequence[str] = ()) -> Path:
    source = SOURCES / f"{name}.c"
    if product.exists() and product.stat().st_mtime >= source.stat().st_mtime:
        return product
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise SystemExit("bench: no C compiler (apt-get install gcc)")
    BUILT.mkdir(parents=True, exist_ok=True)
    made = BUILT / f"{product.name}.{os.getpid()}"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", *how]
    done = subprocess.run([compiler, *flags, "-o", str(made), str(source), *libraries], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {source.name} was not built:\n{done.stderr}")
    made.rename(product)
    return product


def smtp_load(
    port: int,
    *,
    sessions: int,
    messages: int,
    size: int,
    to: str,
    sender: str = "load@bench.example",
    one_each: bool = False,
    pipelined: bool = False,
    domains: int = 0,
    message: Path | None = None,
) -> Load:
    """Sends `messages` to 127.0.0.1:`port`; every reply is checked, and any other than expected raises RuntimeError.

    With `domains` the recipient's domain gets "d0.", "d1." ... before it, so many of them in turn.
    `message`: a file sent instead of one of `size` octets; its lines end in CRLF and do not begin with a dot.
    """
    arguments: list[object] = ["-s", sessions, "-m", messages, "-l", size, "-f", sender, "-t", to, "-d", domains]
    if message is not None:
        arguments += ["-i", message]
    modes = [flag for flag, on in (("-o", one_each), ("-p", pipelined)) if on]
    done = subprocess.run(
        [str(tool("smtp_load")), *modes, *map(str, arguments), "127.0.0.1", str(port)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"smtp_load ended with {done.returncode}")
    figures = json.loads(done.stdout)
    return Load(figures["messages"], figures["seconds"], figures["cpu_seconds"])
