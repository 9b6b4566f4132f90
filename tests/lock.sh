#!/bin/sh
# Resolves the dependencies into the two lock files, with hashes and without index addresses.
set -eu
cd "$(dirname "$0")/.."
uv="$(command -v uv || echo .tools/bin/uv)"
lock() {
    "$uv" pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
        --no-annotate --no-emit-index-url --custom-compile-command "make lock" "$@"
}
lock pyproject.toml -o requirements.lock
lock --group dev pyproject.toml -o requirements-dev.lock
lock tests/bench/envoy.in -o tests/bench/envoy.lock
