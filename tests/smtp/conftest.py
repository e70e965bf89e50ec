from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.smtp_rig import SmtpRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SmtpRig]:
    rig = SmtpRig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[object]:
    """A rig with changed configuration keys."""
    made: list[SmtpRig] = []

    def make(**keys: object) -> SmtpRig:
        from fastmta.config.schema import Config

        defaults = {
            "myhostname": "mx.example.test",
            "smtpd_banner": "mx ESMTP",
            "smtpd_authentication": False,
            "smtpd_peername_lookup": False,
        }
        path = tmp_path / str(len(made))
        path.mkdir()
        made.append(SmtpRig(path, msgspec.structs.replace(Config(), **{**defaults, **keys})))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
