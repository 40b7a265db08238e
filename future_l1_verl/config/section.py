"""Sections of the config trees as typed values."""

from typing import Any, Self

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, ValidationError

from future_l1_verl.wording import did_you_mean


class Section(BaseModel):
    """A section, whose subclasses list its keys with their types and ranges; numbers are finite unless a key says otherwise.

    Values are taken as they are, for others read them from the tree itself: ``no`` is a text and not false.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, config: DictConfig, name: str) -> Self:
        """Returns the section ``name`` of a tree. Raises ValueError naming all keys that are wrong, and what they may be."""
        try:
            return cls.model_validate(OmegaConf.to_container(config[name], resolve=True))
        except ValidationError as error:
            raise ValueError("; ".join(cls._told(name, each) for each in error.errors())) from error

    @classmethod
    def _told(cls, name: str, error: Any) -> str:
        key = ".".join(map(str, (name, *error["loc"])))
        match error["type"]:
            case "extra_forbidden":
                return f"{key} does not exist{did_you_mean(error['loc'][-1], cls.model_fields)}"
            case "missing":
                return f"{key} is needed"
            case "value_error":  # of a validator, which names the keys
                return f"{key}: {error['ctx']['error']}"
            case _:
                return f"{key}: {error['msg'].removeprefix('Input ')}, not {error['input']!r}"
