import json
from pathlib import Path

import pytest

from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings, LatentTokens


class Vocabulary:
    def __init__(self, *tokens: str) -> None:
        self.ids = {token: 100 + i for i, token in enumerate(tokens)}

    def get_vocab(self) -> dict[str, int]:
        return self.ids


def test_ids_come_from_the_vocabulary() -> None:
    assert LatentTokens.from_tokenizer(Vocabulary("a", *CONTROL_TOKENS)) == LatentTokens(101, 102, 103)


def test_a_tokenizer_with_some_of_the_tokens_is_refused_naming_the_others() -> None:
    with pytest.raises(ValueError, match=r"lacks <\|latent\|>, <\|latent_end\|>"):
        LatentTokens.from_tokenizer(Vocabulary(CONTROL_TOKENS[0]))


def test_settings_survive_a_checkpoint(tmp_path: Path) -> None:
    settings = LatentSettings(LatentTokens(1, 2, 3), 4)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x"} | settings.to_config()))
    assert LatentSettings.from_checkpoint(tmp_path) == settings


@pytest.mark.parametrize("missing", ["latent_token_id", "max_latents"])
def test_a_checkpoint_with_half_the_settings_is_refused_naming_file_and_key(tmp_path: Path, missing: str) -> None:
    config = LatentSettings(LatentTokens(1, 2, 3), 4).to_config()
    del config[missing]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{tmp_path}/config.json.*lacks {missing}"):
        LatentSettings.from_checkpoint(tmp_path)


def test_a_budget_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_latents"):
        LatentSettings(LatentTokens(1, 2, 3), 0)
