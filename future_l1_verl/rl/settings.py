"""The sections of stage 2's config tree that are ours."""

from dataclasses import fields
from typing import Annotated, Literal, Self

from omegaconf import DictConfig
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, create_model, model_validator

from future_l1_verl.config.section import Section
from future_l1_verl.latents.likelihood import FAMILIES, Family
from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.shape import SHAPES
from future_l1_verl.rewards.weights import PARTS, Weights
from future_l1_verl.wording import did_you_mean

RATIOS = ("shared", "decoupled")
NORMALISATIONS = ("sum", "parts")
ROUTES = ("all", "slots")

Share = Annotated[float, Field(ge=0, le=1)]


class LatentRollout(Section):
    """The section ``latent``: how latents are decoded and what their likelihood is (`Family`)."""

    spans: bool
    likelihood: Literal[FAMILIES]
    kappa: float
    sigma: NonNegativeFloat
    min_latents: PositiveInt
    freeze_tower: bool
    freeze_merger: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.likelihood == "gaussian") != (self.sigma > 0):
            raise ValueError("likelihood=gaussian and sigma > 0 need each other")
        Family(self.likelihood, self.kappa, self.sigma)
        return self


class LatentLoss(Section):
    """The section ``latent_loss``: how slots enter the loss.

    ``ratio``: ``shared`` multiplies decision and density into one ratio under the clip range of text (DAPO); ``decoupled``
    gives the density a ratio of its own, clipped to ``[1 - clip_low, 1 + clip_high]`` and weighted by ``weight`` (DePO).
    ``kl_coef`` multiplies the closed-form KL of densities to the reference; the KL of tokens has its own coefficient.
    """

    ratio: Literal[RATIOS]
    clip_low: NonNegativeFloat
    clip_high: NonNegativeFloat
    weight: NonNegativeFloat
    kl_coef: NonNegativeFloat


class ReferencePool(Section):
    """The section ``reference_pool``: the devices of the reference, none of its own by default."""

    nnodes: NonNegativeInt
    n_gpus_per_node: NonNegativeInt

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.nnodes) != bool(self.n_gpus_per_node):
            raise ValueError(f"nnodes={self.nnodes} and n_gpus_per_node={self.n_gpus_per_node}: both, or none, are 0")
        return self


_Weights = create_model("_Weights", __base__=Section, **{part: (NonNegativeFloat, ...) for part in PARTS})


class RewardSettings(_Weights):
    """The section ``rewards``: the lambda of each part and what the parts need.

    ``temperature`` is the tau of R_ctr; ``shape`` one of rewards/shape.py; ``repetition_ngram`` the n of the n-grams, and
    ``overlong_buffer`` the last tokens of an answer over which its penalty grows.
    """

    temperature: PositiveFloat
    shape: Literal[SHAPES]
    repetition_ngram: PositiveInt
    overlong_buffer: PositiveInt

    @property
    def weights(self) -> Weights:
        return Weights(**{part: getattr(self, part) for part in PARTS})


class GroupFilter(Section):
    """The section ``group_filter``: groups stay if their mean accuracy lies in ``[low, high]`` (paper section 4), and a step
    generates at most ``max_rounds`` times its number of prompts."""

    low: Share
    high: Share
    max_rounds: PositiveInt

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"need low <= high, not {self.low} and {self.high}")
        return self


class AdvantageSettings(Section):
    """The section ``advantage`` (rl/advantage.py)."""

    normalise: Literal[NORMALISATIONS]
    latent_parts: Literal[ROUTES]


class ParitySettings(Section):
    """The section ``parity``: ``most_at_first`` is the mean gap of text, in nats, above which a run ends at its first step (inf
    for any). Half precision makes gaps of some hundredths; a synchronisation that leaves weights out makes whole nats."""

    most_at_first: Annotated[float, Field(gt=0, allow_inf_nan=True)]


def judge_settings(config: DictConfig) -> JudgeSettings | None:
    """Returns the section ``judge``; None without a URL: answers are graded by rule alone. Raises ValueError naming a key that
    does not exist or makes no sense."""
    known = {field.name for field in fields(JudgeSettings)}
    for name in config.judge.keys() - known:
        raise ValueError(f"judge.{name} does not exist{did_you_mean(name, known)}")
    return JudgeSettings(**config.judge) if config.judge.url is not None else None
