#!/bin/sh
# Installs the distribution's mail programs that the interop tests and the benchmark talk to.
#
# With the word "desktop" also a browser, what runs in it, and Thunderbird, which take some hundred megabytes.
#
# Does something only for root on a Debian-like system, and never fails: where a package can't be had, the tests that
# need it skip and say so. Nothing installed here is started or enabled.
set -u

programs="valgrind gsasl swaks faketime curl mbsync fetchmail mutt smtp-source smtp-sink postfix dovecot msmtp promtool opendkim opendmarc postgrey policyd-spf rspamd spamd clamd postsrsd exim4 offlineimap getmail s-nail imapfilter mpop interimap"
packages="valgrind faketime gsasl swaks libnet-ssleay-perl curl isync fetchmail mutt postfix dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd msmtp ca-certificates opendkim opendmarc postgrey postfix-policyd-spf-python libmail-dkim-perl rspamd spamd clamav-daemon postsrsd offlineimap3 getmail6 s-nail imapfilter mpop interimap"
if [ "${1:-}" = desktop ]; then
    programs="$programs php chromium chromedriver thunderbird Xvfb certutil"
    packages="$packages php-cli roundcube-core roundcube-sqlite3 chromium chromium-driver thunderbird xvfb libnss3-tools"
fi

missing=""
for program in $programs; do
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "tests/install_packages.sh: not installed, their tests will skip:$missing" >&2
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
# Packages must not start their daemons: an existing policy file is the administrator's and stays.
policy=/usr/sbin/policy-rc.d
ours=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=yes
fi
trap '[ -z "$ours" ] || rm -f "$policy"' EXIT

echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections 2>/dev/null

install_packages() {
    # shellcheck disable=SC2086
    timeout 300 apt-get install -y -qq --no-install-recommends $1 >/dev/null 2>&1
}

if ! install_packages "$packages"; then
    timeout 120 apt-get update -qq >/dev/null 2>&1
    if ! install_packages "$packages"; then
        for package in $packages; do # one at a time: what one mirror lacks must not cost the rest
            install_packages "$package" || echo "tests/install_packages.sh: no package $package" >&2
        done
    fi
fi

# promtool alone, out of its package: the rest of it is a daemon, and web libraries, that no test needs.
if ! command -v promtool >/dev/null 2>&1; then
    work=$(mktemp -d) && chmod 755 "$work" && cd "$work" || exit 0
    if timeout 120 apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null 2>&1 &&
        dpkg-deb --fsys-tarfile prometheus_*.deb 2>/dev/null | tar -x ./usr/bin/promtool; then
        install -m 755 usr/bin/promtool /usr/local/bin/promtool
    else
        echo "tests/install_packages.sh: no promtool" >&2
    fi
    rm -rf "$work"
fi

# Exim beside Postfix: the package would take its place, so the program alone, with the user that it asks for.
if ! PATH="$PATH:/usr/local/sbin:/usr/sbin" command -v exim4 >/dev/null 2>&1; then
    work=$(mktemp -d) && chmod 755 "$work" && cd "$work" || exit 0
    if timeout 120 apt-get download -qq -o APT::Sandbox::User=root exim4-daemon-light >/dev/null 2>&1 &&
        dpkg-deb --fsys-tarfile exim4-daemon-light_*.deb 2>/dev/null | tar -x ./usr/sbin/exim4; then
        install -m 755 usr/sbin/exim4 /usr/local/sbin/exim4
        id Debian-exim >/dev/null 2>&1 || useradd -r -M -d /nonexistent -s /usr/sbin/nologin Debian-exim
    else
        echo "tests/install_packages.sh: no exim4" >&2
    fi
    rm -rf "$work"
fi
exit 0
