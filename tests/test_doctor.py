"""What the doctor says of an environment that is fit, and of ones that lack something."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chat_server
import pytest
import torch

from future_l1_verl import doctor, versions
from future_l1_verl.cli import main
from future_l1_verl.doctor import Asked, Unfit

pytestmark = pytest.mark.engine


def asked(platform: str = "cuda", **changed: Any) -> Asked:
    return Asked(**{"platform": platform, "model": None, "ray": None, "judge": None} | changed)


def test_this_environment_is_fit_for_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--platform", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(doctor.CHECKS)
    assert "on cpu: latent spans are in force, and a token was decoded" in lines[-1]


def driver_of(cuda: int | None) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        if cuda is None:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(cuDriverGetVersion=lambda found: setattr(found._obj, "value", cuda))

    return load


@pytest.mark.parametrize(
    ("cuda", "said"),
    [
        (None, "no NVIDIA driver"),
        (12080, r"serves CUDA 12\.8, torch was built for 13\.0: update it to 580"),
        (13000, None),
        (13010, None),
    ],
)
def test_a_driver_that_is_too_old(cuda: int | None, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", driver_of(cuda))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    if said is None:
        assert "torch was built for 13.0" in doctor.driver(asked())
    else:
        with pytest.raises(Unfit, match=said):
            doctor.driver(asked())


def test_a_libc_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "libc_ver", lambda: ("glibc", "2.31"))
    with pytest.raises(Unfit, match=r"glibc 2\.31: the CUDA packages need 2\.35"):
        doctor.python(asked())
    assert "glibc 2.31" in doctor.python(asked("cpu"))


def test_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", {"vllm": "0.25.0", "transformers": "5.9.0"}.get)
    with pytest.raises(Unfit, match=r"installed: vllm 0\.25\.0, transformers 5\.9\.0; needed: vllm 0\.24\.0"):
        doctor.versions(asked())


def test_an_attention_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_attention", lambda: "flash_attention_2")
    monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: torch.zeros(shape, dtype=dtype))
    with pytest.raises(Unfit, match=r"flash_attention_2 does not run here .No module named 'flash_attn'.: bash recipes/env.sh"):
        doctor.attention(asked())


def test_a_cluster_that_is_not_there_and_a_token_that_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert "starts a Ray of its own" in doctor.ray_cluster(asked())
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("secret")
    with pytest.raises(Unfit, match="RAY_AUTH_MODE=token"):
        doctor.ray_cluster(asked(ray="127.0.0.1:1"))
    monkeypatch.setattr(doctor, "_RAY", "import sys; sys.exit(f'no Ray at {sys.argv[1]}')")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(Unfit, match=r"127\.0\.0\.1:1: no Ray at 127\.0\.0\.1:1"):
        doctor.ray_cluster(asked(ray="127.0.0.1:1"))


def test_a_judge_that_knows_nothing() -> None:
    with chat_server.serving() as server, pytest.raises(Unfit, match=f"--check {server.url} says what is wrong"):
        doctor.judge(asked(judge=server.url))


def test_an_engine_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ENGINE", "raise SystemExit('no room for a cache')")
    with pytest.raises(Unfit, match="the engine ended with: no room for a cache"):
        doctor.engine(asked("cpu"))
    monkeypatch.setattr(doctor, "_ENGINE", "print('doctor: cpu')")
    with pytest.raises(Unfit, match=r"vLLM runs on cpu, not on cuda: bash recipes/env.sh cuda"):
        doctor.engine(asked())
