"""What the help of a stage says of its keys is what the tree has."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from future_l1_verl.config.tree import GROUPS, choices, composed, own_keys

SECTIONS = {
    "sft": ("latent",),
    "rl": ("latent", "latent_loss", "reference_pool", "rewards", "judge", "group_filter", "parity", "advantage"),
}


@pytest.mark.parametrize("stage", GROUPS)
def test_every_key_of_our_sections_is_explained_with_its_value(stage: str) -> None:
    config = composed(stage, [])
    explained = {key.path: key for key in own_keys(stage)}
    for section in SECTIONS[stage]:
        assert {f"{section}.{name}" for name in config[section]} <= explained.keys()
    plain = OmegaConf.to_container(config, resolve=False)
    for path, key in explained.items():
        value = plain
        for name in path.split("."):
            value = value[name]
        if not isinstance(value, dict):
            assert OmegaConf.to_container(OmegaConf.create(f"value: {key.value}"), resolve=False)["value"] == value
    assert all(len(key.text) > 5 and key.text.endswith(".") for key in explained.values())


def test_the_choices_of_a_group_are_its_files_without_the_private_ones() -> None:
    assert set(choices("ablation", "rl")) == {
        *("dapo", "dapo+ctr", "dapo+div", "depo", "grpo", "la_dapo", "text_only_dapo", "text_only_grpo"),
    }
    assert set(choices("platform", "sft")) == {"cpu", "cuda"}
    assert choices("ablation", "rl")["dapo"] == "Latent SFT + DAPO: latents are trained through the answer alone"
