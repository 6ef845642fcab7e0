#!/bin/sh
# Install the gateways that benchmarks/overhead.py compares with, each in ./peers/<name>, an environment of its own
# that is not committed. A peer that cannot be installed is reported and left out: the benchmark then prints null for
# it, with the reason.
#
#   benchmarks/peers.sh [litellm] [tensorzero] [portkey]     without names: the first three
#
# Versions are pinned so that a number can be made again. Change one here, and run the benchmark again before
# quoting it.
set -u

LITELLM='litellm[proxy]==1.105.3'
TENSORZERO='tensorzero==2026.6.0'
PORTKEY='1.15.2'
HONO='1.14.1' # of @hono/node-server: with a newer one Portkey answers every stream with a 500 (its issue 1389)

root=$(cd "$(dirname "$0")/.." && pwd)
peers="$root/peers"
python=${PYTHON:-python3}
failed=''
mkdir -p "$peers"

say() { printf '%s\n' "peers: $*" >&2; }

# venv NAME PACKAGE...: a fresh virtual environment in peers/NAME with the packages in it.
venv() {
    name=$1
    shift
    "$python" -m venv --clear "$peers/$name" &&
        "$peers/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
}

install_litellm() {
    venv litellm "$LITELLM"
}

install_tensorzero() {
    venv tensorzero "$TENSORZERO" openai
}

install_portkey() {
    command -v node >/dev/null && command -v npm >/dev/null || { say 'portkey needs node 20 and npm'; return 1; }
    rm -rf "$peers/portkey" && mkdir -p "$peers/portkey" || return 1
    printf '{"dependencies":{"@portkey-ai/gateway":"%s"},"overrides":{"@hono/node-server":"%s"}}\n' \
        "$PORTKEY" "$HONO" >"$peers/portkey/package.json"
    (cd "$peers/portkey" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix .)
}

[ $# -gt 0 ] || set -- litellm tensorzero portkey
for name in "$@"; do
    case $name in
        litellm | tensorzero | portkey) ;;
        *) say "unknown peer: $name (known: litellm, tensorzero, portkey)"; exit 2 ;;
    esac
    say "installing $name into peers/$name"
    if "install_$name"; then
        say "$name is ready"
    else
        say "$name could not be installed"
        failed="$failed $name"
    fi
done
[ -z "$failed" ] || { say "not installed:$failed"; exit 1; }
