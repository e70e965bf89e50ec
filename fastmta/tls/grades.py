"""What Postfix's lists of protocol versions and its cipher grades (config/tls_words.py) make of a context."""

import ssl
import warnings
from typing import Final

_WORDS: Final = {"high": "HIGH", "medium": "HIGH:MEDIUM", "low": "HIGH:MEDIUM", "export": "HIGH:MEDIUM"}
_OFF: Final = {
    "TLSv1": ssl.OP_NO_TLSv1,
    "TLSv1.1": ssl.OP_NO_TLSv1_1,
    "TLSv1.2": ssl.OP_NO_TLSv1_2,
    "TLSv1.3": ssl.OP_NO_TLSv1_3,
}


def restrict(context: ssl.SSLContext, protocols: frozenset[str], grade: str, *, weak: bool) -> None:
    """Lets a context speak these versions with ciphers of this grade only. `weak`: nothing is verified, so that a weak
    key or digest is no worse than a strong one (RFC 7435).
    """
    named = [version for version in _OFF if version in protocols]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the administrator's choice
        context.minimum_version = _version(named[0])
        for version, option in _OFF.items():
            if version not in protocols:
                context.options |= option
    # Without authentication there is nothing to lose by anonymous ciphers but the log's certificate: left out.
    context.set_ciphers(f"{_WORDS[grade]}:!aNULL:!eNULL:@STRENGTH" + (":@SECLEVEL=0" if weak else ""))


def _version(name: str) -> ssl.TLSVersion:
    return getattr(ssl.TLSVersion, name.replace(".", "_"))  # type: ignore[no-any-return]
