"""The wheel beside other people's jobs: installed as they do it, it changes none of their packages.

An environment is recorded in ``environments/`` as `uv pip compile` resolves it for Python 3.11 on Linux; here its packages are
there by name and version alone.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted(Path(__file__).with_name("environments").glob("*.txt"))
UV = str(Path(sys.executable).with_name("uv"))
ADDED = {"future-l1-verl", "math-verify", "latex2sympy2-extended", "antlr4-python3-runtime", "sympy", "mpmath"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for the build leaves folders where its source is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("future_l1_verl", "data_prep"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", out, source], check=True, timeout=900)
    (built,) = out.glob("*.whl")
    return built


def would_change(record: Path, wheel: Path, folder: Path, extra: str = "") -> tuple[set[str], set[str]]:
    """Names that installing the wheel would add to an environment, and those that it would take away or replace."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", record.read_text(), re.MULTILINE):
        info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").touch()
    command = [UV, "pip", "install", "--no-config", "--dry-run", "--python", folder / "bin/python", f"{wheel}{extra}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    changes = re.findall(r"^ ([-+~]) ([\w-]+)", done.stderr, re.MULTILINE)
    return {name for sign, name in changes if sign == "+"}, {name for sign, name in changes if sign in "-~"}


@pytest.mark.parametrize("record", ENVIRONMENTS, ids=lambda record: record.stem)
def test_no_package_of_theirs_changes(record: Path, wheel: Path, tmp_path: Path) -> None:
    added, changed = would_change(record, wheel, tmp_path / "env")
    assert changed == set() and added <= ADDED and "future-l1-verl" in added


def test_the_check_notices_a_change(wheel: Path, tmp_path: Path) -> None:
    """The control: what trains wants packages of its own."""
    record = next(record for record in ENVIRONMENTS if record.stem == "verl-0.8.0")
    changed = would_change(record, wheel, tmp_path / "env", "[train]")[1]
    assert {"verl", "torch", "transformers", "numpy"} <= changed


def test_the_wheel_holds_all_that_is_read_at_run_time_and_no_upper_bounds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = message_from_string(archive.read(metadata).decode())
    for folder in ("future_l1_verl", "data_prep"):
        files = (file for ending in ("yaml", "jinja", "txt") for file in (ROOT / folder).rglob(f"*.{ending}"))
        assert {str(file.relative_to(ROOT)) for file in files} <= names
    needed = [requirement for requirement in described.get_all("Requires-Dist") if "extra ==" not in requirement]
    assert {re.split(r"[^\w-]", requirement)[0] for requirement in needed} == {"math-verify", "torch"}
    assert not any(sign in requirement for requirement in [*needed, described["Requires-Python"]] for sign in ("<", "==", "~"))
