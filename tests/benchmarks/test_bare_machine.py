"""What is packed for a machine without registry arrives there whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from gpu import bare
from gpu.bare import LIMIT, LOCK, PARTS, pack, pinned, split, unpack

TRAINING, _, STAGE_2 = PARTS
RAY = {
    "ray/__init__.py": b"import ray",
    "ray/_raylet.so": random.Random(0).randbytes(5000),
    "ray/core/src/ray/raylet/raylet": b"a program",
    "ray/core/src/ray/gcs/gcs_server": random.Random(1).randbytes(3000),
    "ray/dashboard/agent.py": b"agent",
    "ray/dashboard/client/build/main.js": b"left out",
    "ray/jars/ray_dist.jar": b"left out",
    "ray-1.dist-info/METADATA": b"Name: ray",
}
VERL = {
    "verl/__init__.py": b"verl",
    "verl-1.data/purelib/recipe/part.py": b"from data",
    "verl-1.data/scripts/verl": b"no module",
}


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o100755 if "raylet/raylet" in name else 0o100644) << 16
            made.writestr(member, data)
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> dict[str, Path]:
    return {"ray": wheel(tmp_path / "ray.whl", RAY), "verl": wheel(tmp_path / "verl.whl", VERL)}


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "future_l1_verl" not in str(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_tree_comes_back_in_pieces_within_the_limit(wheels: dict[str, Path], tmp_path: Path) -> None:
    loads, site = [tmp_path / "load 0", tmp_path / "load 1"], tmp_path / "site"
    made = tmp_path / "made"
    made.mkdir()
    pack(TRAINING, wheels, made / "training.zip")
    pieces = split(made / "training.zip", limit=4000)
    assert len(pieces) == 2 and all(0 < piece.stat().st_size <= 4000 for piece in pieces)
    for load, piece in zip(loads, pieces, strict=True):
        load.mkdir()
        for path in (piece, made / "training.zip.json"):
            (load / path.name).write_bytes(path.read_bytes())
    assert unpack(loads[0], site) == ["training.zip: 1 of 2 pieces are here"]
    assert files(site).keys() == {".pieces/training.zip.0"}
    assert unpack(loads[1], site) == ["training.zip: unpacked"]
    imported = {name: RAY[name] for name in ("ray/__init__.py", "ray/_raylet.so", "ray-1.dist-info/METADATA")}
    assert files(site) == imported | {"verl/__init__.py": b"verl", "recipe/part.py": b"from data"}


def test_ray_comes_in_two_parts(wheels: dict[str, Path], tmp_path: Path) -> None:
    """They are all of it but what is left out, and have no file in common; programs can be run."""
    found = {}
    for part in (TRAINING, STAGE_2):
        folder, site = tmp_path / part.name, tmp_path / f"{part.name} site"
        folder.mkdir()
        pack(part, {"ray": wheels["ray"]}, folder / "part.zip")
        split(folder / "part.zip")
        unpack(folder, site)
        assert not found.keys() & files(site).keys()
        found |= files(site)
    assert found == {name: data for name, data in RAY.items() if data != b"left out"}
    assert os.access(site / "ray/core/src/ray/raylet/raylet", os.X_OK)
    assert not os.access(site / "ray/dashboard/agent.py", os.X_OK)


def test_a_damaged_piece_is_refused(wheels: dict[str, Path], tmp_path: Path) -> None:
    pack(TRAINING, wheels, tmp_path / "training.zip")
    (piece,) = split(tmp_path / "training.zip")
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"training\.zip\.0 is damaged"):
        unpack(tmp_path, tmp_path / "site")


def test_the_project_is_found_as_a_plugin(tmp_path: Path) -> None:
    pack(TRAINING, {}, tmp_path / "training.zip")
    split(tmp_path / "training.zip")
    unpack(tmp_path, tmp_path / "site")
    (found,) = distributions(path=[str(tmp_path / "site")])
    assert {(point.group, point.value) for point in found.entry_points} == {
        ("vllm.general_plugins", "future_l1_verl.decoding.plugin:register"),
    }


def test_packages_are_those_of_the_lock_for_its_python() -> None:
    lock = "av==18.1.0 ; python_full_version < '3.12'\nav==19.0.2 ; python_full_version >= '3.12'\nRay==2.0\n"
    assert pinned(lock, ["av", "ray"]) == ["av==19.0.2", "ray==2.0"]
    with pytest.raises(ValueError, match=r"cuda\.txt has no torch"):
        pinned(lock, ["ray", "torch"])
    for part in PARTS:
        assert len(pinned(LOCK.read_text(), part.packages)) == len(part.packages)
    assert LIMIT < 64 * 2**20


def test_unpacking_needs_python_alone(tmp_path: Path) -> None:
    pack(TRAINING, {}, tmp_path / "training.zip")
    split(tmp_path / "training.zip")
    command = [sys.executable, "-S", "-I", bare.__file__, "unpack", str(tmp_path), "--into", str(tmp_path / "site")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "training.zip: unpacked\n"
