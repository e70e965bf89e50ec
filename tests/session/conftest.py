from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.smtp_rig import SmtpRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SmtpRig]:
    rig = SmtpRig(tmp_path)
    yield rig
    rig.close()
