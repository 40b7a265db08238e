"""The resolvers of the config trees: ``${installed_attention:}`` and ``${sum:A,B}``."""

from omegaconf import OmegaConf

from future_l1_verl.config.attention import installed_attention


def register() -> None:
    """Registers them with OmegaConf."""
    OmegaConf.register_new_resolver("installed_attention", installed_attention, replace=True)
    OmegaConf.register_new_resolver("sum", lambda *numbers: sum(numbers), replace=True)
