#!/bin/sh
# Installs what is missing, and only that: uv, the locked environment in .venv, HAProxy.
# Nothing needs root but the haproxy package; without root the message says what to run.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Where there are system certificates they are right, also behind a company's own authority.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then export UV_SYSTEM_CERTS=true; fi

find_uv() {
    if command -v uv >/dev/null 2>&1; then command -v uv; return; fi
    if [ -x .tools/bin/uv ]; then echo "$PWD/.tools/bin/uv"; return; fi
    say "installing uv into .tools"
    # --target also works where Python belongs to the distribution (PEP 668), without venv
    if python3 -m pip --version >/dev/null 2>&1; then
        pip_uv || die "pip could not install uv; check the network"
    elif python3 tests/get_uv.py .tools/bin >.tools/get_uv.log 2>&1; then
        :
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "python3 has no pip: installing the package python3-pip"
        apt_install python3-pip
        pip_uv || die "pip could not install uv"
    else
        die "neither uv nor pip is here, and no download; run: sudo apt-get install python3-pip"
    fi
    echo "$PWD/.tools/bin/uv"
}

pip_uv() {
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
        --root-user-action=ignore --target .tools uv >&2
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >.tools/apt.log 2>&1 ||
        { apt-get update -q >.tools/apt.log 2>&1 &&
          DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>.tools/apt.log 2>&1; } ||
        die "apt-get could not install $*; its last words: $(tail -n 1 .tools/apt.log)"
}

command -v python3 >/dev/null 2>&1 || die "python3 is missing; run: sudo apt-get install python3"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python $(python3 -V | cut -d" " -f2) is too old; 3.11 or newer is needed"

mkdir -p .tools
stamp=.venv/.locked
wanted="$(cat requirements-dev.lock pyproject.toml | sha256sum)"
if [ ! -x .venv/bin/python ] || [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
    uv="$(find_uv)"
    say "making the environment in .venv (about 20 s with an empty cache)"
    [ -x .venv/bin/python ] || "$uv" venv --quiet --python "$(command -v python3)" .venv
    "$uv" pip sync --quiet --require-hashes --python .venv/bin/python requirements-dev.lock
    "$uv" pip install --quiet --no-deps --python .venv/bin/python --editable .
    echo "$wanted" >$stamp
fi

PATH="$PATH:/usr/sbin:/usr/local/sbin"
if ! command -v haproxy >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing the package haproxy"
        apt_install haproxy
    else
        die "HAProxy is missing; run: sudo apt-get install haproxy"
    fi
fi
