"""The table of what is overridden of verl: complete, true of the installed version, and of use."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils

from future_l1_verl.training.verl_methods import check_verl, overridden
from future_l1_verl.versions import UnsupportedVersion


def overriding(package: str) -> Iterator[tuple[type, str]]:
    """Yields the class of verl's and the name of each method that a class of ours overrides, also by a mixin."""
    found = import_module(f"future_l1_verl.{package}")
    for module in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
        for cls in vars(import_module(module.name)).values():
            cls = getattr(getattr(cls, "__ray_metadata__", None), "modified_class", cls)
            if not inspect.isclass(cls) or cls.__module__ != module.name:
                continue
            for place, own in enumerate(cls.__mro__):
                for name, value in vars(own).items() if own.__module__.startswith("future_l1_verl.") else ():
                    called = isinstance(value, property) or callable(getattr(value, "__func__", value))
                    if called and (not name.startswith("__") or name == "__init__"):
                        yield from first_of_verl(cls.__mro__[place + 1 :], name)


def first_of_verl(classes: tuple[type, ...], name: str) -> Iterator[tuple[type, str]]:
    for cls in classes:
        # Ray makes of an actor class one within a function, which is no place of verl's.
        if cls.__module__.startswith("verl.") and "<locals>" not in cls.__qualname__ and name in vars(cls):
            yield cls, name
            return


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_the_table_names_what_is_overridden_and_nothing_else(stage: str) -> None:
    def places(found: Iterator[tuple]) -> set[tuple[str, str]]:
        return {(owner.__qualname__, name) for owner, name, *_ in found if inspect.isclass(owner)}

    assert places(overridden(stage)) == places(overriding(stage)) | places(overriding("training"))


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_the_installed_verl_has_them(stage: str) -> None:
    check_verl(stage)


def test_a_verl_without_a_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SFTTrainer, "_build_ckpt_handler")
    with pytest.raises(UnsupportedVersion, match=r"^SFTTrainer\._build_ckpt_handler is not in this verl; reinstall"):
        check_verl("sft")


def test_a_verl_with_other_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTTrainer, "_build_ckpt_handler", lambda self, folder: None)
    monkeypatch.setattr(tensordict_utils, "maybe_fix_3d_position_ids", lambda batch: batch)
    with pytest.raises(UnsupportedVersion, match=r"^SFTTrainer\._build_ckpt_handler takes \('self', 'folder'\) in"):
        check_verl("sft")
    with pytest.raises(UnsupportedVersion, match=r"tensordict_utils\.maybe_fix_3d_position_ids takes \('batch',\)"):
        check_verl("rl")
