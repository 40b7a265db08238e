# What recipes share; they read it with `source`, from the root of the checkout.

# --help among a recipe's arguments prints the lines at its top.
for argument in "$@"; do
    case "$argument" in -h | --help) awk 'NR > 1 && !/^#/ { exit } NR > 1 && !/^#SBATCH/ { sub(/^# ?/, ""); print }' "recipes/${0##*/}" && exit ;; esac
done

# fail MESSAGE: ends the recipe.
fail() { printf '%s: %s\n' "${0##*/}" "$1" >&2; exit 1; }

# environment BUILD OVERRIDES...: installs what a stage runs in, for GPUs only where there are some, or a Ray that may have them.
environment() {
    [ "$1" = cpu ] || command -v nvidia-smi >/dev/null || [ -e /dev/nvidiactl ] || [ -n "${RAY_ADDRESS:-}" ] || [[ "$*" = *ray_init.address=* ]] ||
        fail "no GPU found: add platform=cpu"
    bash recipes/env.sh "$1"
}

# quoted VALUE: prints it so that hydra takes KEY=PRINTED for this very value, whatever characters it has. Backslashes double
# before what they would else change the meaning of: an interpolation, a quote, the end.
quoted() {
    printf '%s\0' "$1" | LC_ALL=C sed -zE 's/(\\*)\$\{/\1\1\\${/g; s/(\\*)(\x27|$)/\1\1\2/g; s/\x27/\\\x27/g; s/.*/\x27&\x27/' | tr -d '\0'
}
