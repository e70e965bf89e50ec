"""What holds for the whole suite: bytecode is kept, and what depends on the machine's load is no matter.

The tests start hundreds of interpreters. Where PYTHONDONTWRITEBYTECODE is set, as in many images, each of them would
compile the package anew, which takes longer than what it was started for.
"""

import os
import sys

from hypothesis import HealthCheck, settings

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long it takes to make an input says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
