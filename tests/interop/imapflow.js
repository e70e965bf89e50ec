// What imapflow sees and does: node imapflow.js PORT CA USER PASSWORD; prints one line of JSON.
"use strict";
const { readFileSync } = require("fs");
const { ImapFlow } = require("imapflow");

const [port, ca, user, pass] = process.argv.slice(2);
const client = () => new ImapFlow({
    host: "localhost", port: Number(port), secure: true, auth: { user, pass }, qresync: true, logger: false,
    tls: { ca: readFileSync(ca) },
});
const letter = number => "From: a@client.example\r\nSubject: flow " + number + "\r\nMIME-Version: 1.0\r\n"
    + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    + "Gr\u00fc\u00dfe\r\n--b\r\nContent-Type: application/octet-stream; name=x.bin\r\n"
    + "Content-Disposition: attachment; filename=x.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + Buffer.alloc(3000, number).toString("base64").replace(/.{76}/g, "$&\r\n") + "\r\n--b--\r\n";

async function main() {
    const told = {}, events = [];
    const mine = client(), other = client();
    await mine.connect();
    told.enabled = [...mine.enabled].sort();
    told.folders = (await mine.list()).map(each => [each.path, each.specialUse || ""]).sort();
    await mine.mailboxOpen("INBOX");
    for (let number = 1; number <= 4; number++)
        await mine.append("INBOX", letter(number), number % 2 ? ["\\Seen"] : [], new Date(Date.UTC(2026, 1, number)));
    await mine.noop();
    told.messages = [];
    const items = { uid: true, flags: true, envelope: true, bodyStructure: true, internalDate: true, size: true };
    for await (const each of mine.fetch("1:*", items))
        told.messages.push([each.seq, each.uid, [...each.flags], each.envelope.subject, each.internalDate.toISOString(),
            each.bodyStructure.childNodes.map(part => part.type), each.size]);
    told.unseen = await mine.search({ seen: false, subject: "flow" }, { uid: true });
    told.text = await mine.search({ body: "Gr\u00fc\u00dfe" });
    const part = await mine.download("2", "2"), pieces = [];
    for await (const piece of part.content) pieces.push(piece);
    told.part = [part.meta.filename, Buffer.concat(pieces).equals(Buffer.alloc(3000, 2))];
    await mine.messageFlagsAdd("1:3", ["\\Flagged", "$Label1"]);
    told.copied = [...(await mine.messageCopy("1:2", "Archive")).uidMap];
    told.moved = [...(await mine.messageMove("3", "Trash")).uidMap];
    told.made = (await mine.mailboxCreate(["T\u00e4glich", "sub"])).path;
    await mine.mailboxRename("T\u00e4glich/sub", "T\u00e4glich/other");
    told.status = await mine.status("INBOX", { messages: true, uidNext: true, unseen: true });

    for (const kind of ["exists", "expunge", "flags"]) mine.on(kind, each => {
        events.push([kind, each.count || each.uid || each.seq]);
        if (kind == "exists") mine.emit("all");
    });
    await other.connect();
    await other.mailboxOpen("INBOX");
    const heard = new Promise(resolve => mine.once("all", resolve));
    mine.idle();
    await other.messageFlagsAdd("1", ["\\Answered"]);
    await other.messageDelete("2");
    await other.append("INBOX", letter(9));
    await heard;
    told.events = events;
    await other.logout();
    await mine.logout();
    console.log(JSON.stringify(told));
}
main().catch(error => { console.error(error); process.exit(1); });
