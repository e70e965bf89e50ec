"""What `sendmail` and `mailq` read of the file is what the whole reader reads."""

import os
from pathlib import Path

import pytest

from fastmta.config.brief import read_brief
from fastmta.config.load import load
from fastmta.model.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "",
        'data_directory = "data"',
        'data_directory = "/srv/mail"\nmessage_size_limit = "50M"',
        'data_directory = "$config_directory/../x"\nmessage_size_limit = 1000',
        'mydomain = "example.org"\ndata_directory = "/srv/${mydomain}"\nmessage_size_limit = " 2 GiB "',
        'data_directory = "a$$b"\r\nmessage_size_limit = "12kb"\r\n',
        'message_size_limit = "0"',
    ],
)
def test_it_agrees_with_the_whole_reader(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fastmta.toml"
    path.write_text(text)
    brief, config = read_brief(str(path)), load(path)
    assert os.path.normpath(brief.data_directory) == os.path.normpath(config.data_directory)
    assert (brief.message_size_limit, brief.config_file) == (config.message_size_limit, config.config_file)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "data_directory = 5",
        'data_directory = "$nothing"',
        'message_size_limit = "5 apples"',
        "message_size_limit = -1",
    ],
)
def test_what_it_cannot_use_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fastmta.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"fastmta\.toml"):
        read_brief(str(path))
    with pytest.raises(ConfigError):
        load(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot read"):
        read_brief(str(tmp_path / "absent.toml"))
    (tmp_path / "bytes.toml").write_bytes(b'x = "\xff"')
    with pytest.raises(ConfigError):
        read_brief(str(tmp_path / "bytes.toml"))
