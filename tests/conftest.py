"""What holds for the whole suite: bytecode is kept.

The tests start hundreds of interpreters. Where PYTHONDONTWRITEBYTECODE is set, as in many images, each of them would
compile the package anew, which takes longer than what it was started for.
"""

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
