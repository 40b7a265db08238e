import pytest

from future_l1_verl import versions


def test_the_installed_set_is_the_tested_one() -> None:
    versions.require(*versions.TESTED)


@pytest.mark.parametrize("found", ["0.9.0", "0.9.1.post1", "0.10.1"])
def test_another_version_is_refused_naming_the_tested_one(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(versions, "version", lambda name: found)
    with pytest.raises(versions.UnsupportedVersion, match=rf"verl 0\.9\.1 is needed, {found} is installed"):
        versions.require("verl")


def test_a_missing_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise versions.PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    with pytest.raises(versions.UnsupportedVersion, match=r"vllm 0\.24\.0 is needed, none is installed"):
        versions.require("vllm")
