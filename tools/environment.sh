#!/bin/sh
# Makes the virtual environment of this repository and installs simdflow into it, editable, with
# the extras named: `tools/environment.sh .venv test dev`. It installs nothing outside that folder,
# but for Debian's python3-venv where it is missing and this runs as root.
set -eu

venv=$1
shift
extras=$(echo "$*" | tr ' ' ',')

say() { printf 'simdflow: %s\n' "$*" >&2; }
new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if new_enough "$name"; then
            echo "$name"
            return
        fi
    done
    say "no Python 3.11 or later found; install one, or name it: make PYTHON=/path/to/python3"
    exit 1
}

# Debian's python3 comes without ensurepip: `python3 -m venv` would leave a folder without pip.
need_ensurepip() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing Debian's $package"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package"
    else
        say "this Python has no venv; run: sudo apt-get install $package (then make again)"
        exit 1
    fi
}

if ! new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    need_ensurepip "$python"
    "$python" -m venv --clear "$venv"
fi
if [ -n "$extras" ]; then
    target=".[$extras]"
else
    target=.
fi
say "installing $target into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$target"
