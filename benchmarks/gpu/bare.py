"""Packs the packages that a machine with torch and a checkout, but no registry, lacks, and unpacks them there.

    python benchmarks/gpu/bare.py pack --part 1 --out DIR      here: DIR/training.zip.0, ... of at most 60 MiB
    python benchmarks/gpu/bare.py unpack DIR --into SITE       there, for each load; then PYTHONPATH=SITE

Part 1, ``training``, is enough for the phases of run.py up to ``density_rounding``; 2, ``engine``, has vLLM; 3, ``stage_2``,
Ray's servers and video. A part whose pieces do not travel at once is unpacked when the last of them has arrived. Packages are
those of recipes/locks/cuda.txt for Python 3.12, without what such a machine has (torch 2.11, numpy, pandas, pillow, ...), and
without large files that the phases do not load (`LEFT_OUT`). ``unpack`` needs Python alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "recipes/locks/cuda.txt"
LIMIT = 60 * 2**20  # bytes of a piece: a load is 64 MiB, and the checkout travels with each
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_35", "manylinux_2_31", "manylinux_2_28", "manylinux_2_17", "manylinux2014")


@dataclass(frozen=True)
class Part:
    """``packages`` as the lock names them; of those in ``only`` the files of these patterns alone."""

    name: str
    packages: tuple[str, ...]
    only: dict[str, tuple[str, ...]]


RAY_SERVERS = ("ray/core/src/ray/*/*", "ray/_private/runtime_env/agent/*", "ray/dashboard/*", "ray/core/libjemalloc.so")
"""What Ray starts; importing it, as verl does, takes the rest."""
LEFT_OUT = {
    "mistral-common": ("mistral_common/data/*",),  # tokenizers
    "pycountry": ("pycountry/locales/*",),
    "xgrammar": ("*.a",),
    "ray": ("ray/jars/*", "ray/rllib/*", "ray/dashboard/client/*"),
    "vllm": (
        "vllm/vllm-rs",  # the server's front end in Rust
        "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",  # Hopper has FlashAttention 3
        "vllm/_moe_C_stable_libtorch.abi3.so", "vllm/third_party/deep_gemm/*", "vllm/_flashmla*", "vllm/_qutlass*",
    ),
}  # fmt: skip
"""By package: what no phase loads; of Ray the Java classes and its page."""

PARTS = (
    Part(
        "training",
        (
            "verl", "transformers", "tokenizers", "tensordict", "transferqueue", "hydra-core", "omegaconf",
            "antlr4-python3-runtime", "codetiming", "dill", "multiprocess", "datasets", "orjson", "msgspec", "pyvers", "pyzmq",
            "torchdata", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "ray",
        ),
        {},
    ),
    Part(
        "engine",
        (
            "vllm", "annotated-types", "apache-tvm-ffi", "blake3", "cachetools", "cbor2", "dnspython", "email-validator",
            "fastapi", "httpx2", "jmespath", "llguidance", "mistral-common", "openai", "openai-harmony", "partial-json-parser",
            "pybase64", "pycountry", "pydantic", "pydantic-core", "pydantic-extra-types", "python-multipart", "sniffio",
            "starlette", "typing-inspection", "uvicorn", "xgrammar",
        ),
        {},
    ),
    Part(
        "stage_2",
        (
            "ray", "av", "ijson", "latex2sympy2-extended", "math-verify", "model-hosting-container-standards", "qwen-vl-utils",
            "watchfiles",
        ),
        {"ray": RAY_SERVERS},
    ),
)  # fmt: skip


def wanted(part: Part, package: str, file: str) -> bool:
    """Says whether a file of a package's wheel goes into the part."""
    if any(fnmatch(file, pattern) for pattern in LEFT_OUT.get(package, ())):
        return False
    servers = package == "ray" and any(fnmatch(file, pattern) for pattern in RAY_SERVERS)
    return servers if package in part.only else not servers


def pinned(lock: str, packages: Iterable[str]) -> list[str]:
    """Returns ``NAME==VERSION`` of each package for Python 3.12. Raises ValueError for one that the lock does not have."""
    versions: dict[str, str] = {}
    for line in lock.splitlines():
        found = re.match(r"([\w.-]+)==([^\s;]+)(?: ; (.*))?$", line)
        if found and not (found[3] and "< '3.12'" in found[3]):
            versions[found[1].lower()] = found[2]
    missing = sorted(set(packages) - set(versions))
    if missing:
        raise ValueError(f"{LOCK.name} has no {', '.join(missing)}")
    return [f"{package}=={versions[package]}" for package in packages]


def download(requirements: Sequence[str], into: Path) -> dict[str, Path]:
    """Returns the wheel of each package. One that PyPI has as source alone is built: it must be pure Python."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    there = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    there += [option for name in PLATFORMS for option in ("--platform", f"{name}_x86_64")]
    wheels = {}
    for requirement in requirements:
        folder = into / requirement
        found = subprocess.run([*pip, "download", "--no-deps", *there, "-d", str(folder), requirement])
        if found.returncode:
            subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), requirement], check=True)
        (wheel,) = folder.glob("*.whl")
        if found.returncode and not wheel.name.endswith("-none-any.whl"):
            raise ValueError(f"{requirement} has neither a wheel for Python {PYTHON} nor is it pure Python")
        wheels[requirement.split("==")[0]] = wheel
    return wheels


def pack(part: Part, wheels: dict[str, Path], archive: Path) -> None:
    """Writes the wanted files of the wheels as one zip file, those of their ``*.data`` folders where an installer puts them."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for package, wheel in wheels.items():
            with zipfile.ZipFile(wheel) as given:
                for member in given.infolist():
                    name = re.sub(r"^[^/]+\.data/(?:purelib|platlib)/", "", member.filename)
                    if not member.is_dir() and ".data/" not in name and wanted(part, package, name):
                        member.filename = name
                        out.writestr(member, given.read(member.orig_filename), zipfile.ZIP_DEFLATED)
        if part == PARTS[0]:
            for name, text in project_metadata().items():
                out.writestr(name, text)


def project_metadata() -> dict[str, str]:
    """Returns files by which verl and vLLM find this package, whose code is the checkout's, as their plugin."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    points = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in project["entry-points"].items()
    ]
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n",
        f"{folder}/entry_points.txt": "\n".join(points),
    }


def split(archive: Path, limit: int = LIMIT) -> list[Path]:
    """Cuts a file into pieces ``NAME.0``, ... of at most ``limit`` bytes, and removes it. ``NAME.json``, which travels with
    each, has their sums."""
    pieces, sums = [], []
    with archive.open("rb") as whole:
        while data := whole.read(limit):
            pieces.append(archive.with_name(f"{archive.name}.{len(pieces)}"))
            pieces[-1].write_bytes(data)
            sums.append(hashlib.sha256(data).hexdigest())
    archive.unlink()
    archive.with_name(f"{archive.name}.json").write_text(json.dumps(sums))
    return pieces


def unpack(folder: Path, site: Path) -> list[str]:
    """Takes the pieces in ``folder`` into ``site``, and unpacks the parts that have all of theirs. Returns a line a part.

    Raises ValueError if a piece's sum is not the one in its part's list.
    """
    kept = site / ".pieces"
    kept.mkdir(parents=True, exist_ok=True)
    lines = []
    for listed in sorted(folder.glob("*.zip.json")):
        name, sums = listed.name.removesuffix(".json"), json.loads(listed.read_text())
        pieces = [f"{name}.{number}" for number in range(len(sums))]
        for piece, expected in zip(pieces, sums, strict=True):
            if (folder / piece).exists():
                data = (folder / piece).read_bytes()
                if hashlib.sha256(data).hexdigest() != expected:
                    raise ValueError(f"{folder / piece} is damaged: its sum is not that in {listed.name}")
                (kept / piece).write_bytes(data)
        here = [kept / piece for piece in pieces if (kept / piece).exists()]
        if len(here) < len(pieces):
            lines.append(f"{name}: {len(here)} of {len(pieces)} pieces are here")
            continue
        with (kept / name).open("wb") as whole:
            for piece in here:
                whole.write(piece.read_bytes())
        with zipfile.ZipFile(kept / name) as archive:
            _extract(archive, site)
        for done in (kept / name, *here):
            done.unlink()
        lines.append(f"{name}: unpacked")
    return lines


def _extract(archive: zipfile.ZipFile, site: Path) -> None:
    """Extracts all files with their modes: some are programs, which zipfile would leave without the right to be run."""
    for member in archive.infolist():
        path = Path(archive.extract(member, site))
        if mode := member.external_attr >> 16 & 0o777:
            path.chmod(mode)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--part", type=int, choices=range(1, len(PARTS) + 1), required=True)
    packing.add_argument("--out", type=Path, required=True)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("--into", type=Path, required=True)
    args = parser.parse_args(arguments)
    if args.command == "unpack":
        print("\n".join(unpack(args.folder, args.into)))
        return
    part = PARTS[args.part - 1]
    args.out.mkdir(parents=True, exist_ok=True)
    archive = args.out / f"{part.name}.zip"
    with tempfile.TemporaryDirectory() as folder:
        pack(part, download(pinned(LOCK.read_text(), part.packages), Path(folder)), archive)
    for piece in split(archive):
        print(f"{piece}: {piece.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
