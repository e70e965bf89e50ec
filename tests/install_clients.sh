#!/bin/sh
# Installs IMAP clients that no distribution has into build/clients: libraries for Python and Node, apart from ours.
#
# Usage: install_clients.sh PYTHON. Never fails: the tests of what can't be had skip and say so.
set -u

cd "$(dirname "$0")/.." || exit 0
into=build/clients
mkdir -p "$into"
"${1:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade \
    --target "$into" -r tests/interop/clients.txt >/dev/null 2>&1 ||
    echo "tests/install_clients.sh: no IMAP libraries for Python" >&2
if command -v npm >/dev/null 2>&1; then
    npm install --silent --no-save --ignore-scripts --prefix "$into" imapflow@2.10.2 >/dev/null 2>&1 ||
        echo "tests/install_clients.sh: no imapflow" >&2
fi
exit 0
