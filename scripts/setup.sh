#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
# setup.sh          makes .venv from requirements.lock, and sees to a RISC-V compiler. `make` calls it before its targets.
# setup.sh browser  sees to Chromium, in which the tests open the report's page. `make test` calls it.
# setup.sh lock     writes requirements.lock from pyproject.toml, keeping the versions that still fit.
#
# When nothing has changed since it last succeeded, it returns within milliseconds and touches no network.
# The package index and certificates that pip is configured for serve uv too; UV_DEFAULT_INDEX and SSL_CERT_FILE
# overrule them.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV_VERSION=0.13.9
UV=${XDG_CACHE_HOME:-$HOME/.cache}/tt-deepseek-norms/uv-$UV_VERSION
STAMP=.venv/made-from
source tt_device/toolchain/stock-gcc.env # GXX, PICOLIBC, HOST_CXX, APT_INSTALL, DEBIAN_PACKAGES, SYSTEM_SFPI

main() {
    if has_compiler && is_fresh; then return; fi
    # The lock is this very file: there is no lock file to be left behind. NFS locks only what is open for writing.
    exec 9>>scripts/setup.sh
    if ! flock -n 9; then
        say "waiting for another set-up of this folder"
        flock 9
    fi
    has_compiler || install_compiler
    is_fresh || make_venv
}

# What .venv is made from, and where: a moved .venv would run the interpreter at its old place.
sources() { pwd -P && sha256sum requirements.lock pyproject.toml scripts/setup.sh; }

is_fresh() { [[ -x .venv/bin/python && -f $STAMP && $(<"$STAMP") == "$(sources)" ]]; }

# Tenstorrent's SFPI in one of the places where tt-metal looks for it, or the stock GCC that the stand-in works with.
has_compiler() {
    local sfpi
    for sfpi in "${TT_METAL_RUNTIME_ROOT:-}/runtime/sfpi" "$SYSTEM_SFPI" \
        .venv/lib/python3.12/site-packages/ttnn/runtime/sfpi; do
        if [[ -x $sfpi/compiler/bin/riscv-tt-elf-g++ ]]; then return; fi
    done
    command -v "$GXX" >/dev/null && [[ -d $PICOLIBC && -d $HOST_CXX ]]
}

install_compiler() {
    has_root || die "the RISC-V compiler is missing, and only root can install it: type
    $APT_INSTALL $DEBIAN_PACKAGES
and run make again"
    apt_install $DEBIAN_PACKAGES || die "apt-get could not install $DEBIAN_PACKAGES"
}

# Without one the browser's tests are skipped, and say so: Ubuntu has Chromium as a snap alone, which containers lack.
see_to_browser() {
    if command -v chromium >/dev/null; then return; fi
    { has_root && apt_install chromium; } || say "no Chromium: the tests that open the report's page will be skipped"
}

has_root() { ((EUID == 0)) || sudo -n true 2>/dev/null; }

apt_install() {
    local as_root=()
    if ((EUID != 0)); then as_root=(sudo -n); fi
    say "installing $*"
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
    # A repository that is down need not be the one that has our packages: the install decides.
    "${as_root[@]}" update >&2 9<&- || say "apt-get update failed, trying to install all the same"
    "${as_root[@]}" install -y --no-install-recommends "$@" >&2 9<&-
}

make_venv() {
    configure_uv
    # No stamp: a first set-up, or one that was interrupted, whose half-installed packages uv would take for whole.
    if ! [[ -x .venv/bin/python && -f $STAMP && $(head -n 1 "$STAMP") == "$(pwd -P)" ]]; then
        say "making .venv"
        # The account's pyenv counts even where nothing has put it on PATH, as in CI.
        PATH=$PATH:${PYENV_ROOT:-$(getent passwd "$EUID" | cut -d: -f6)/.pyenv}/shims \
            "$UV/bin/uv" venv --quiet --clear --no-project --python 3.12 .venv ||
            die "uv could not make .venv: if no Python 3.12 is there, install one (apt or pyenv) and run make again"
    fi
    rm -f "$STAMP"
    say "installing the packages of requirements.lock (about 3 GB to download the first time)"
    "$UV/bin/uv" pip sync --python .venv --require-hashes requirements.lock
    "$UV/bin/uv" pip install --python .venv --quiet --no-deps --no-build-isolation --offline --editable .
    sources >"$STAMP.new"
    mv "$STAMP.new" "$STAMP" # last, and whole
    say "done"
}

write_lock() {
    configure_uv
    "$UV/bin/uv" pip compile --quiet --universal --python-version 3.12 --generate-hashes --all-extras --group dev \
        --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
}

configure_uv() {
    local python
    python=$(python_with_pip)
    [[ -x $UV/bin/uv ]] || fetch_uv "$python"
    : "${UV_DEFAULT_INDEX:=${UV_INDEX_URL:-$(pip_setting "$python" index-url)}}"
    : "${SSL_CERT_FILE:=$(pip_setting "$python" cert)}"
    # uv takes an empty value for a setting, so what is not set stays unset.
    if [[ $UV_DEFAULT_INDEX ]]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi
    if [[ $SSL_CERT_FILE ]]; then export SSL_CERT_FILE; else unset SSL_CERT_FILE; fi
    export UV_SYSTEM_CERTS=true # a company's own authority is in the system's store, not in uv's
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
}

# pyenv's python3 refuses to run where .python-version names a version that it lacks: then the system's serves.
python_with_pip() {
    local python
    for python in python3 python3.12 /usr/bin/python3 /usr/local/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    die "no python3 with pip: type
    $APT_INSTALL python3-pip
and run make again"
}

# From pip's files or environment; the latter is listed first. (`pip config get` knows not all of them.)
pip_setting() { "$1" -m pip config list | sed -n "s/^[^=]*\.$2='\(.*\)'\$/\1/p" | head -n 1; }

# This version and not whichever is on PATH: their options and locks differ. PEP 668 lets --target pass everywhere.
fetch_uv() {
    local partial
    say "fetching uv $UV_VERSION"
    { mkdir -p "$(dirname "$UV")" && partial=$(mktemp -d "$UV.XXXXXX"); } ||
        die "can't write in $(dirname "$UV"): set XDG_CACHE_HOME to a folder that can be written and run make again"
    trap "rm -rf ${partial@Q}" EXIT # when this fails or is interrupted, or another folder's set-up was faster
    # Settings that don't go with --target are taken back.
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=false PIP_USER=false \
        "$1" -m pip install --quiet --no-deps --target "$partial" "uv==$UV_VERSION" >&2 ||
        die "pip could not fetch uv $UV_VERSION: is a package index within reach?"
    mv -T "$partial" "$UV" 2>/dev/null || [[ -x $UV/bin/uv ]] || die "can't write $UV"
}

say() { printf 'set-up: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

case "${1:-}" in
    "") main ;;
    browser) see_to_browser ;;
    lock) write_lock ;;
    *) die "unknown argument: $1" ;;
esac
