import pytest

from future_l1_verl import versions


def have(monkeypatch: pytest.MonkeyPatch, **found: str | None) -> None:
    monkeypatch.setattr(versions, "installed", found.get)


def test_the_installed_versions_are_those_of_a_set() -> None:
    name = versions.require("vllm", "transformers")
    assert versions.SETS[name] == {package: versions.installed(package) for package in versions.SETS[name]}


@pytest.mark.parametrize("found", ["0.9.0", "0.9.1.post1", "0.10.1"])
def test_another_version_is_refused_naming_the_tested_one(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    have(monkeypatch, verl=found, vllm="0.24.0")
    with pytest.raises(versions.UnsupportedVersion, match=rf"installed: verl {found}; needed: verl 0\.9\.1 \(bash recipes"):
        versions.require("verl")


def test_packages_are_of_one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    both = list(versions.SETS.values())
    for name, tested in versions.SETS.items():
        have(monkeypatch, **tested)
        assert versions.require("vllm") == versions.require("vllm", "transformers") == name
    have(monkeypatch, vllm=both[0]["vllm"], transformers=both[1]["transformers"])
    with pytest.raises(versions.UnsupportedVersion, match=r"vllm 0\.24\.0, transformers 5\.9\.0 .*, or vllm 0\.32\.0, transf"):
        versions.require("vllm", "transformers")
    have(monkeypatch, **both[1], verl="0.9.1")
    with pytest.raises(
        versions.UnsupportedVersion, match=r"installed: verl 0\.9\.1, vllm 0\.32\.0; needed: verl 0\.9\.1, vllm 0\.24"
    ):
        versions.require("verl", "vllm")


def test_a_missing_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise versions.PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    with pytest.raises(versions.UnsupportedVersion, match=r"installed: vllm none; needed: vllm 0\.24\.0"):
        versions.require("vllm")
