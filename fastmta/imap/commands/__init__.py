"""The command table: each command's function, legal states (RFC 3501 §6), and what it tells at its end."""

from typing import Final

from fastmta.imap.commands import (
    append,
    authenticate,
    capability,
    copy,
    enable,
    expunge,
    fetch,
    identify,
    idle,
    listing,
    login,
    logout,
    manage,
    noop,
    search,
    select,
    starttls,
    store,
)
from fastmta.imap.session import ANY, LOGGED_IN, Command, State, Sync

_NEW: Final = State.NOT_AUTHENTICATED
_SELECTED: Final = State.SELECTED

COMMANDS: Final[dict[bytes, Command]] = {
    b"CAPABILITY": Command(capability.run, ANY, Sync.ALL),
    b"NOOP": Command(noop.noop, ANY, Sync.ALL),
    b"LOGOUT": Command(logout.run, ANY),
    b"ID": Command(identify.run, ANY, Sync.ALL),
    b"STARTTLS": Command(starttls.run, _NEW),
    b"AUTHENTICATE": Command(authenticate.run, _NEW),
    b"LOGIN": Command(login.run, _NEW),
    b"ENABLE": Command(enable.run, LOGGED_IN, Sync.ALL),
    b"SELECT": Command(select.select, LOGGED_IN),
    b"EXAMINE": Command(select.examine, LOGGED_IN),
    b"CREATE": Command(manage.create, LOGGED_IN, Sync.ALL),
    b"DELETE": Command(manage.delete, LOGGED_IN, Sync.ALL),
    b"RENAME": Command(manage.rename, LOGGED_IN, Sync.ALL),
    b"SUBSCRIBE": Command(manage.subscribe, LOGGED_IN, Sync.ALL),
    b"UNSUBSCRIBE": Command(manage.unsubscribe, LOGGED_IN, Sync.ALL),
    b"LIST": Command(listing.list_, LOGGED_IN, Sync.ALL),
    b"XLIST": Command(listing.xlist, LOGGED_IN, Sync.ALL),
    b"LSUB": Command(listing.lsub, LOGGED_IN, Sync.ALL),
    b"NAMESPACE": Command(listing.namespace, LOGGED_IN, Sync.ALL),
    b"STATUS": Command(listing.status, LOGGED_IN, Sync.ALL),
    b"APPEND": Command(append.run, LOGGED_IN, Sync.ALL),
    b"IDLE": Command(idle.run, LOGGED_IN),
    b"CHECK": Command(noop.check, _SELECTED, Sync.ALL),
    b"CLOSE": Command(select.close, _SELECTED),
    b"UNSELECT": Command(select.unselect, _SELECTED),
    b"EXPUNGE": Command(expunge.expunge, _SELECTED, Sync.ALL),
    b"SEARCH": Command(search.search, _SELECTED, Sync.NO_EXPUNGE),
    b"FETCH": Command(fetch.fetch, _SELECTED, Sync.NO_EXPUNGE),
    b"STORE": Command(store.store, _SELECTED, Sync.NO_EXPUNGE),
    b"COPY": Command(copy.copy, _SELECTED, Sync.NO_EXPUNGE),
    b"MOVE": Command(copy.move, _SELECTED, Sync.ALL),
    b"UID EXPUNGE": Command(expunge.uid_expunge, _SELECTED, Sync.ALL),
    b"UID SEARCH": Command(search.uid_search, _SELECTED, Sync.ALL),
    b"UID FETCH": Command(fetch.uid_fetch, _SELECTED, Sync.ALL),
    b"UID STORE": Command(store.uid_store, _SELECTED, Sync.ALL),
    b"UID COPY": Command(copy.uid_copy, _SELECTED, Sync.ALL),
    b"UID MOVE": Command(copy.uid_move, _SELECTED, Sync.ALL),
}
