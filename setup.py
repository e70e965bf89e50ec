"""Builds the Cython extensions: every fastmta/_*.pyx is one, and nothing else is compiled.

FASTMTA_BUILD chooses the flavour: release (default), debug (bounds checks, -O0 -g), asan (debug with
AddressSanitizer and UndefinedBehaviorSanitizer).
FASTMTA_EXT limits the build to the named modules, for instance FASTMTA_EXT=_parser,_store.
FASTMTA_JOBS is how many are compiled at a time (2).
Warnings of Cython are errors; those of the C compiler too in a checkout, but not for who installs an sdist with a
compiler that we have not met.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

FLAVOUR = os.environ.get("FASTMTA_BUILD", "release")
ONLY = {name for name in os.environ.get("FASTMTA_EXT", "").split(",") if name}
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
C_FLAGS = {
    "release": ["-O3", "-fno-plt", "-g1"],
    "debug": ["-O0", "-g", "-UNDEBUG"],
    "asan": ["-O1", "-g", "-UNDEBUG", *SANITIZERS, "-fno-omit-frame-pointer"],
}
# gcc 13 and newer give a constant the type of its enum, which may be unsigned: Cython's comparisons with int are right.
WERROR = ["-Werror", "-Wno-error=sign-compare"] if Path(__file__).with_name(".git").exists() else []
if FLAVOUR not in C_FLAGS:
    raise SystemExit(f"setup.py: FASTMTA_BUILD={FLAVOUR!r} is not one of {', '.join(C_FLAGS)}")

Options.warning_errors = True
os.chdir(Path(__file__).parent)

extensions = [
    Extension(
        f"fastmta.{source.stem}",
        [str(source)],
        extra_compile_args=[
            *C_FLAGS[FLAVOUR],
            "-Wall",
            *WERROR,
            "-Wno-unused-function",
            "-Wno-unused-but-set-variable",
            "-Wno-unreachable-code",
        ],
        extra_link_args=SANITIZERS if FLAVOUR == "asan" else [],
        libraries=["pthread", "dl"],
    )
    for source in sorted(Path("fastmta").glob("_*.pyx"))
    if not ONLY or source.stem in ONLY
]
JOBS = int(os.environ.get("FASTMTA_JOBS", "2"))

setup(
    options={"build_ext": {"parallel": JOBS}},
    ext_modules=cythonize(
        extensions,
        nthreads=JOBS,
        build_dir=f"build/cython-{FLAVOUR}",
        compiler_directives={
            "language_level": 3,
            "binding": False,
            "embedsignature": False,
            "boundscheck": True,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
        },
        force=FLAVOUR != "release",
        emit_linenums=FLAVOUR != "release",
    ),
)
