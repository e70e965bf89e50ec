"""`fastmta mailbox export / import`: mbox and Maildir out and in again, and what others have written."""

import asyncio
import mailbox
import os
from pathlib import Path

import pytest

from fastmta import _mime
from fastmta.config.load import load
from fastmta.model.flags import ANSWERED, FLAGGED, SEEN
from fastmta.store import MailStore

USER = "bill@example.test"
TRICKY = b"Subject: tricky\r\n\r\nFrom here on\r\n>From there\r\n\r\nFrom x Thu Jan  1 00:00:00 1970\r\n.\r\n"
LONG = b"Subject: long\r\n\r\n" + b"From " * 200_000 + b"\r\nFrom end\r\n"


def with_store(cli, work):
    async def run():
        store = MailStore.open(Path(load(cli.config).data_directory))
        store.attach(asyncio.get_running_loop())
        try:
            return await work(store, store.accounts.lookup(USER))
        finally:
            store.detach()
            store.close()

    return asyncio.run(run())


def put(cli, text, box="INBOX", *, flags=0, keywords=b"", date_s=1_700_000_000, prefix=b""):
    async def work(store, account):
        found = store.mailboxes.get(account.id, box) or await store.mailboxes.create(account.id, box)
        blob = store.mailboxes.new_blob()
        structure = _mime.Structure()
        for start in range(0, len(text), 60_000):
            blob.feed(text[start : start + 60_000])
            structure.feed(text[start : start + 60_000])
        await store.mailboxes.append(
            found.id,
            blob,
            prefix=prefix,
            flags=flags,
            keywords=keywords,
            internal_date_s=date_s,
            structure=structure.finish(),
        )

    with_store(cli, work)


def whole(cli, box="INBOX"):
    """(bytes, flags, keywords, date) of each message."""

    async def work(store, account):
        found = store.mailboxes.get(account.id, box)
        out = []
        for row in store.mailboxes.rows(found.id, store.mailboxes.uids(found.id)):
            text = b""
            while chunk := store.mailboxes.read(found.id, row.uid, len(text), 262_144):
                text += chunk
            structure = _mime.Structure()
            structure.feed(text[len(row.prefix) :])
            assert structure.finish() == store.mailboxes.structure(found.id, row.uid)
            out.append((text, row.flags, row.keywords, row.internal_date_s))
        return out

    return with_store(cli, work)


def names(cli):
    async def work(store, account):
        return {each.name: each.exists for each in store.mailboxes.list(account.id)}

    return with_store(cli, work)


@pytest.fixture
def filled(cli):
    cli.user(USER)
    put(cli, TRICKY, flags=SEEN | ANSWERED, keywords=b"$Forwarded Later", prefix=b"Return-Path: <a@b.c>\r\n")
    put(cli, LONG, flags=FLAGGED, date_s=1_600_000_000)
    put(cli, b"Subject: no end\r\n\r\nlast line", date_s=1_650_000_000)
    put(cli, b"Subject: filed\r\n\r\nx\r\n", "Projects/R\u00e4der.2", date_s=1_660_000_000)
    return cli


def test_mbox_out_and_in_again(filled, tmp_path):
    before = whole(filled)
    done = filled.ok("mailbox", "export", USER, str(tmp_path / "out.mbox"), "--mailbox", "INBOX")
    assert done.out.startswith("3 messages")
    assert b"\r" not in (tmp_path / "out.mbox").read_bytes()
    filled.ok("mailbox", "import", USER, str(tmp_path / "out.mbox"), "--mailbox", "Back")
    after = whole(filled, "Back")
    assert [each[1:] for each in after] == [each[1:] for each in before]
    assert [each[0] for each in after] == [before[0][0], before[1][0], before[2][0] + b"\r\n"]


def test_mbox_is_what_the_standard_library_reads(filled, tmp_path):
    filled.ok("mailbox", "export", USER, str(tmp_path / "out.mbox"))
    box = mailbox.mbox(tmp_path / "out.mbox", create=False)
    assert [message["Subject"] for message in box] == ["tricky", "long", "no end", "filed"]
    assert box[0].get_flags() == "ROA"
    assert box[0].get_from() == "a@b.c Tue Nov 14 22:13:20 2023"
    box.close()


def test_maildir_out_and_in_again(filled, tmp_path):
    before = whole(filled)
    (tmp_path / "out").mkdir()
    done = filled.ok("mailbox", "export", USER, str(tmp_path / "out"))
    assert done.out.startswith("4 messages")
    assert (tmp_path / "out" / ".Projects.R&AOQ-der&AC4-2" / "cur").is_dir()
    filled.ok("mailbox", "purge", USER, "--yes")
    assert names(filled)["INBOX"] == 0
    filled.ok("mailbox", "import", USER, str(tmp_path / "out"))
    assert sorted(whole(filled)) == sorted(before)
    assert whole(filled, "Projects/R\u00e4der.2")[0][0] == b"Subject: filed\r\n\r\nx\r\n"


def test_maildir_is_what_the_standard_library_reads(filled, tmp_path):
    filled.ok("mailbox", "export", USER, str(tmp_path / "out"), "--format", "maildir", "--mailbox", "INBOX")
    box = mailbox.Maildir(tmp_path / "out", create=False)
    flags = {message["Subject"]: message.get_flags() for message in box}
    assert flags["tricky"] == "PRSa"
    assert flags["long"] == "F"
    assert box.list_folders() == []


def test_mbox_of_the_standard_library_is_read(cli, tmp_path):
    cli.user(USER)
    box = mailbox.mbox(tmp_path / "in.mbox")
    for number in range(200):
        message = mailbox.mboxMessage(f"Subject: s{number}\n\nFrom line {number}\nx\n")
        message.set_flags("RF" if number % 2 else "")
        message.set_from("x@y.z", (2020, 1, 2, 3, 4, 5, 3, 2, 0))
        box.add(message)
    box.close()
    assert cli.ok("mailbox", "import", USER, str(tmp_path / "in.mbox")).out.startswith("200 messages")
    found = whole(cli)
    assert [text.partition(b"\r\n")[0] for text, *_ in found] == [b"Subject: s%d" % n for n in range(200)]
    assert [flags for _, flags, *_ in found] == [0, SEEN | FLAGGED] * 100
    assert {date for *_, date in found} == {1577934245}
    assert all(b"Status" not in text and b"\r\nFrom line" in text for text, *_ in found)


def test_bare_newlines_become_crlf(cli, tmp_path):
    cli.user(USER)
    box = tmp_path / "box"
    for part in ("cur", "new", "tmp"):
        (box / part).mkdir(parents=True)
    (box / "new" / "1.x.y").write_bytes(b"Subject: x\n\na\rb\r\nc\r\r\nd\r")
    cli.ok("mailbox", "import", USER, str(box))
    assert whole(cli)[0][0] == b"Subject: x\r\n\r\na b\r\nc \r\nd "


def test_links_and_strange_files_of_a_maildir_are_not_read(cli, tmp_path):
    cli.user(USER)
    secret = tmp_path / "secret"
    secret.write_bytes(b"Subject: secret\n\n")
    box = tmp_path / "box"
    for part in ("cur", "new", "tmp"):
        (box / part).mkdir(parents=True)
    (box / "cur" / "1.link:2,S").symlink_to(secret)
    (box / ".Linked").symlink_to(tmp_path)
    (box / "cur" / ".hidden").write_bytes(b"x")
    os.mkfifo(box / "cur" / "2.pipe:2,")
    (box / "tmp" / "3.tmp").write_bytes(b"x")
    assert cli.ok("mailbox", "import", USER, str(box)).out.startswith("0 messages")


@pytest.mark.parametrize("content", [b"Subject: x\n\nno mbox\n", b"\0\1\2"])
def test_other_files_are_refused_and_make_no_mailbox(cli, tmp_path, content):
    cli.user(USER)
    (tmp_path / "file").write_bytes(content)
    done = cli("mailbox", "import", USER, str(tmp_path / "file"), "--mailbox", "Made")
    assert done.code == 65
    assert "not an mbox" in done.err
    assert "Made" not in names(cli)


def test_empty_file_holds_no_message(cli, tmp_path):
    cli.user(USER)
    (tmp_path / "file").write_bytes(b"")
    assert cli.ok("mailbox", "import", USER, str(tmp_path / "file")).out.startswith("0 messages")


def test_plain_directory_is_no_maildir(cli, tmp_path):
    cli.user(USER)
    (tmp_path / "dir").mkdir()
    assert cli("mailbox", "import", USER, str(tmp_path / "dir")).code == 65


def test_file_that_exists_is_not_overwritten(filled, tmp_path):
    (tmp_path / "out.mbox").write_bytes(b"precious")
    assert filled("mailbox", "export", USER, str(tmp_path / "out.mbox")).code == 73
    assert (tmp_path / "out.mbox").read_bytes() == b"precious"


def test_unknown_mailbox_is_refused(filled, tmp_path):
    assert filled("mailbox", "export", USER, str(tmp_path / "x"), "--mailbox", "Nowhere").code == 66
    assert not (tmp_path / "x").exists()


def test_quota_stops_an_import_and_says_what_was_read(cli, tmp_path):
    cli.user(USER)
    cli.ok("user", "quota", USER, "1000")
    message = b"From x@y.z Thu Jan  1 00:00:00 1970\nSubject: x\n\n" + b"y" * 280 + b"\n\n"
    (tmp_path / "in.mbox").write_bytes(message * 10)
    done = cli("mailbox", "import", USER, str(tmp_path / "in.mbox"))
    assert done.code == 73
    assert "quota" in done.err
    assert "3 messages" in done.err
    assert names(cli)["INBOX"] == 3


def test_internal_data_of_other_servers_is_left_out(cli, tmp_path):
    cli.user(USER)
    (tmp_path / "in.mbox").write_bytes(
        b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
        b"X-IMAP: 1 2\nStatus: RO\n\ninternal\n\nFrom x Thu Jan  1 00:00:00 1970\nSubject: real\nX-Keywords: a b\n\nx\n"
    )
    cli.ok("mailbox", "import", USER, str(tmp_path / "in.mbox"))
    assert [each[:3] for each in whole(cli)] == [(b"Subject: real\r\n\r\nx\r\n", 0, b"a b")]


def maildir(path):
    for part in ("cur", "new", "tmp"):
        (path / part).mkdir(parents=True)
    return path


def test_link_in_place_of_the_path_is_refused(filled, tmp_path):
    box = maildir(tmp_path / "box")
    (box / "new" / "1").write_bytes(b"Subject: x\n\n")
    (tmp_path / "in.mbox").write_bytes(b"From x Thu Jan  1 00:00:00 1970\nSubject: x\n\n")
    for target in ("box", "in.mbox"):
        link = tmp_path / f"link-{target}"
        link.symlink_to(tmp_path / target)
        for command in ("import", "export"):
            done = filled("mailbox", command, USER, str(link))
            assert (done.code, "is a symbolic link" in done.err) == (66, True)
    assert names(filled)["INBOX"] == 3


@pytest.mark.parametrize("planted", ["cur", "tmp", ".Sent", ".Sent/tmp"])
def test_export_does_not_write_through_a_link(filled, tmp_path, planted):
    box, elsewhere = tmp_path / "box", maildir(tmp_path / "elsewhere")
    (box / planted).parent.mkdir(parents=True, exist_ok=True)
    (box / planted).symlink_to(elsewhere)
    put(filled, b"Subject: sent\r\n\r\n", "Sent")
    done = filled("mailbox", "export", USER, str(box))
    assert (done.code, "Not a directory" in done.err) == (74, True)
    assert [each for each in elsewhere.rglob("*") if each.is_file()] == []


def test_export_replaces_a_link_for_the_keywords_and_leaves_its_target(filled, tmp_path):
    box = maildir(tmp_path / "box")
    (tmp_path / "target").write_text("precious")
    (box / "dovecot-keywords").symlink_to(tmp_path / "target")
    (box / "maildirfolder").symlink_to(tmp_path / "absent")
    filled.ok("mailbox", "export", USER, str(box))
    assert (tmp_path / "target").read_text() == "precious"
    assert (box / "dovecot-keywords").read_text() == "0 Later\n"
    assert not (tmp_path / "absent").exists()


def test_folder_that_is_no_modified_utf7_is_read_by_its_name(cli, tmp_path):
    cli.user(USER)
    folder = maildir(maildir(tmp_path / "box") / ".R&D")
    (folder / "new" / "1").write_bytes(b"Subject: x\n\n")
    cli.ok("mailbox", "import", USER, str(tmp_path / "box"))
    assert names(cli)["R&D"] == 1


@pytest.mark.parametrize("folder", [".a..b", ".a%b"])
def test_folder_that_no_mailbox_can_be_called_after_is_told_before_anything_is_read(cli, tmp_path, folder):
    cli.user(USER)
    box = maildir(tmp_path / "box")
    (box / "new" / "1").write_bytes(b"Subject: x\n\n")
    maildir(box / folder)
    assert cli("mailbox", "import", USER, str(box)).code == 65
    assert names(cli)["INBOX"] == 0


def test_mailbox_that_cannot_be_made_is_refused(cli, tmp_path):
    cli.user(USER)
    done = cli("mailbox", "import", USER, str(maildir(tmp_path / "box")), "--mailbox", "a//b")
    assert (done.code, "empty level" in done.err) == (65, True)


def test_messages_without_a_byte_are_left_out(cli, tmp_path):
    cli.user(USER)
    (maildir(tmp_path / "box") / "new" / "1").write_bytes(b"")
    assert cli.ok("mailbox", "import", USER, str(tmp_path / "box")).out.startswith("0 messages")
    from_line = b"From x Thu Jan  1 00:00:00 1970\n"
    (tmp_path / "in.mbox").write_bytes(from_line + b"\n" + from_line + b"Subject: x\n\n\n")
    assert cli.ok("mailbox", "import", USER, str(tmp_path / "in.mbox")).out.startswith("1 message ")


def test_empty_mailbox_makes_an_empty_file_and_an_empty_maildir(cli, tmp_path):
    cli.user(USER)
    assert cli.ok("mailbox", "export", USER, str(tmp_path / "out.mbox")).out.startswith("0 messages")
    assert (tmp_path / "out.mbox").read_bytes() == b""
    cli.ok("mailbox", "export", USER, str(tmp_path / "out"), "--format", "maildir")
    assert cli.ok("mailbox", "import", USER, str(tmp_path / "out")).out.startswith("0 messages")


def test_messages_of_one_second_keep_their_order_in_a_maildir(cli, tmp_path):
    cli.user(USER)
    for number in range(12):
        put(cli, b"Subject: %d\r\n\r\n" % number)
    cli.ok("mailbox", "export", USER, str(tmp_path / "out"), "--format", "maildir")
    cli.ok("mailbox", "purge", USER, "--yes")
    cli.ok("mailbox", "import", USER, str(tmp_path / "out"))
    assert [text for text, *_ in whole(cli)] == [b"Subject: %d\r\n\r\n" % number for number in range(12)]
