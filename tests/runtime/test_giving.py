"""What root gives away in a directory that another user owns."""

import os
import pwd
from pathlib import Path

import pytest

from fastmta.model.errors import ConfigError
from fastmta.runtime.giving import give, lies_with, open_directory
from fastmta.runtime.identity import WorkersUser, acting_as_workers
from fastmta.store import MailStore

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
NOBODY = pwd.getpwnam("nobody")
WHO = WorkersUser("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
OTHER_UID = 54_321


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that the workers' user owns."""
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    os.chown(made, WHO.uid, WHO.gid)
    return made


@needs_root
def test_the_files_that_fastmta_makes_are_given(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "running").mkdir(parents=True)
    (data / "public" / "maildrop").mkdir(parents=True)
    handed_in = data / "public" / "maildrop" / ("0" * 32)
    handed_in.touch()
    os.chown(handed_in, OTHER_UID, OTHER_UID)
    ours = [data / "data.mdb", data / "lock", data / "running" / "0-17"]
    for path in ours:
        path.touch()
    assert give(data, WHO) == []
    folders = (data, data / "running", data / "public", data / "public" / "maildrop")
    assert {path.stat().st_uid for path in (*folders, *ours)} == {WHO.uid}
    assert handed_in.stat().st_uid == OTHER_UID


@needs_root
def test_every_file_of_a_store_that_root_made_is_given(tmp_path: Path) -> None:
    """What `init` leaves behind, the workers have to open."""
    data = tmp_path / "data"
    MailStore.open(data).close()
    assert give(data, WHO) == []
    assert {path.name for path in data.rglob("*") if path.stat().st_uid != WHO.uid} == set()


@needs_root
def test_a_file_of_another_name_is_not_given(data: Path) -> None:
    (data / "something.pem").touch()
    (data / "running").mkdir()
    (data / "running" / "passwd").touch()
    give(data, WHO)
    assert (data / "something.pem").stat().st_uid == 0
    assert (data / "running" / "passwd").stat().st_uid == 0


@needs_root
@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_link_to_roots_file_gives_nothing_away(data: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "shadow"
    secret.touch()
    link = data / "data.mdb"
    if kind == "hard":
        os.link(secret, link)
    else:
        link.symlink_to(secret)
    assert len(give(data, WHO)) == 1
    assert secret.stat().st_uid == 0


@needs_root
@pytest.mark.parametrize("name", ["running", "bus"])
def test_a_link_in_a_folders_place_gives_nothing_away(data: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0-17").touch()
    (data / name).symlink_to(elsewhere)
    assert len(give(data, WHO)) == 1
    assert {elsewhere.stat().st_uid, (elsewhere / "0-17").stat().st_uid} == {0}


@needs_root
def test_a_device_or_a_third_users_file_is_left(data: Path) -> None:
    os.mkfifo(data / "lock")
    (data / "data.mdb").touch()
    os.chown(data / "data.mdb", OTHER_UID, OTHER_UID)
    assert len(give(data, WHO)) == 2
    assert (data / "data.mdb").stat().st_uid == OTHER_UID


@needs_root
def test_what_the_former_user_had_goes_to_the_new_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "data.mdb").touch()
    for path in (data, data / "data.mdb"):
        os.chown(path, OTHER_UID, OTHER_UID)
    assert give(data, WHO) == []
    assert (data / "data.mdb").stat().st_uid == WHO.uid


@needs_root
def test_a_data_directory_in_the_users_own_place_is_no_link(data: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (data / "inner").symlink_to(etc)
    with pytest.raises(ConfigError, match="cannot be opened"):
        give(data / "inner", WHO)
    assert etc.stat().st_uid == 0
    (tmp_path / "by-root").symlink_to(data)
    os.close(open_directory(tmp_path / "by-root"))


@needs_root
def test_acting_as_a_user_makes_his_files_and_ends(data: Path, tmp_path: Path) -> None:
    (tmp_path / "roots").touch(mode=0o600)
    (data / "link").symlink_to(tmp_path / "roots")
    data.parent.chmod(0o755)
    with acting_as_workers(WHO):
        assert os.geteuid() == WHO.uid
    assert os.geteuid() == 0
    os.chdir(data)  # the way there may be root's alone
    with acting_as_workers(WHO):
        Path("made").touch()
        with pytest.raises(PermissionError):
            Path("link").write_text("x")
    assert (data / "made").stat().st_uid == WHO.uid


@needs_root
def test_a_key_in_the_users_directory_is_not_read_by_root(data: Path, tmp_path: Path) -> None:
    assert lies_with(data / "key.pem", WHO)
    assert not lies_with(tmp_path / "key.pem", WHO)
