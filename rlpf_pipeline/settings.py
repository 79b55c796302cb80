"""Every setting of the pipeline with its default (the values of the run profiles: profiles.py).

The study does not publish its hyperparameters, KL coefficient, length penalty, minimum impressions or prompt; the
values here are our own defaults. A training job receives the whole `Settings` in its `run.json`.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS

MOST_SEED = 2**32 - 1000
"""NumPy takes seeds below 2**32, and what is trained in parts adds the part's number."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"{str(value).lower()} does not fit (YAML takes yes, no, on and off for true and false)")
        return value


def faults_of(error: ValidationError) -> str:
    """What does not fit, and where, in one line."""
    return "; ".join(": ".join(filter(None, (".".join(map(str, own["loc"])), own["msg"]))) for own in error.errors())


TINY, SMOLLM2 = "tiny", "smollm2-135m-instruct"
"""Base models that are there by themselves (models/base.py), whatever the working folder holds."""
Format = Literal["upworthy", "meta-ads", "google-ads", "generic"]
"""Of files of observed ads."""
MetaClicks = Literal["link", "all"]
Relevance = Literal["words", "minilm"]
Algorithm = Literal["ppo", "rloo", "grpo", "dpo", "best-of-n"]
Temperature = Annotated[float, Field(ge=0.01)]
"""Below, texts hardly differ any more, and logits over it leave the range of a float."""


class MarketSettings(Section):
    """The simulated ad market that stands in for an ads platform. Only data generation and evaluation read it."""

    seed: NonNegativeInt = 2024
    advertisers: PositiveInt = Field(270, description="advertisers in the history that becomes raw multitext ads")
    mean_ads: float = Field(1.5, ge=1, description="mean ads of an advertiser, who has at least one")
    variants: PositiveInt = Field(4, description="texts of an ad")
    base_ctr: float = Field(0.031, gt=0, lt=1, description="CTR of an average text of an average advertiser")
    median_impressions: float = Field(
        6000.0, gt=0, le=1e9, description="median impressions of a text; heavy-tailed (log-normal)"
    )
    impressions_sigma: float = Field(0.8, ge=0, le=2, description="standard deviation of log impressions")
    divergent_share: float = Field(
        0.0, ge=0, le=1, description="share of ads delivered to an audience of each text's own, more where it clicks"
    )
    advertiser_sigma: NonNegativeFloat = Field(
        0.45, description="standard deviation of the advertiser effect on log CTR"
    )
    days: int = Field(1, ge=1, le=366, description="days an ad runs; with several, a text has a row a day")
    novelty: float = Field(
        0.0, ge=-20, le=20, description="log CTR that a text has more on its first day; halved every two days"
    )
    early_winner: NonNegativeFloat = Field(
        0.0, description="power of a text's CTR so far by which later days show it more. 0: all alike"
    )
    relevance: Relevance = Field("words", description="to the original: shared words, or MiniLM embeddings")


class IngestSettings(Section):
    columns: dict[str, str] = Field({}, description="generic: field of the raw table -> column of the file")
    meta_clicks: MetaClicks = Field("link", description="meta-ads: clicks on the link, or all clicks")
    keep_broken_randomisation: bool = Field(
        False, description="upworthy: keep the tests of 2013-06-25 to 2014-01-10, whose viewers were not randomised"
    )

    @field_validator("columns")
    @classmethod
    def _of_known_fields(cls, columns: dict[str, str]) -> dict[str, str]:
        fields = RAW_MULTITEXT_ADS.column_names
        for field in columns:
            if field not in fields:
                near = get_close_matches(field, fields, 1)
                hint = f": is it {near[0]}?" if near else "."
                raise ValueError(f"unknown field '{field}'{hint} Fields are {', '.join(fields)}")
        return columns


class PairSettings(Section):
    min_impressions: PositiveInt = Field(100, description="variants with fewer impressions make no pair")
    prior_strength: PositiveFloat | None = Field(
        None, description="impressions that the Beta prior of a text's CTR is worth; None: estimated per source"
    )
    min_effect: NonNegativeFloat = Field(
        0.0, description="pairs whose CTRs differ less, in posterior log odds, are left out"
    )
    max_p_value: float | None = Field(
        None, gt=0, le=1, description="pairs with a larger p-value are left out. None: all stay, and soft labels tell"
    )
    max_pairs_per_ad: PositiveInt | None = Field(None, description="pairs sampled from an ad with more. None: all")
    min_evenness: float = Field(
        0.0, ge=0, le=1, description="no pair of ads whose texts of min_impressions or more were delivered less evenly"
    )
    weigh_evenness: bool = Field(False, description="multiply a pair's weight by that evenness")
    near_duplicate: float = Field(
        0.9, gt=0.5, lt=1, description="ads with texts of this Jaccard similarity (word pairs) share a split"
    )
    validation: NonNegativeFloat = 0.1
    test: NonNegativeFloat = 0.15
    evaluation: NonNegativeFloat = Field(0.25, description="share of clusters kept for the evaluation reward model")

    @model_validator(mode="after")
    def _something_is_left_for_training(self) -> PairSettings:
        shares = {"validation": self.validation, "test": self.test, "evaluation": self.evaluation}
        if sum(shares.values()) >= 1:
            named = ", ".join(f"pairs.{name}={share:g}" for name, share in shares.items())
            raise ValueError(f"the shares {named} leave nothing for training; their sum must be below 1")
        return self


class BaseModelSettings(Section):
    name: str = Field(
        SMOLLM2,
        description=f"`{SMOLLM2}`, `{TINY}`, a hub name, or a folder: a causal LM of Llama's kind; reward "
        "models take encoders too",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the hardware multiplies it natively, else float32"
    )


class LoraSettings(Section):
    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    top_layers: PositiveInt | None = Field(
        None, description="adapt only the last N layers; the backward pass then stops there. None: all layers"
    )


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # no such port, or half an IPv6 address
        return False


class TeacherSettings(Section):
    model: str | None = Field(
        None, description="who rewrites: a model of `endpoint`, else a hub name or folder. None: the base model"
    )
    endpoint: str | None = Field(
        None,
        description="base URL of an OpenAI-compatible API; its key is read from OPENAI_API_KEY. None: a local model",
    )
    concurrency: PositiveInt = Field(8, description="requests to the endpoint at a time")
    examples: NonNegativeInt = Field(150, description="originals that the teacher rewrites, each under one instruction")
    human_examples: NonNegativeInt = Field(
        160, description="examples taken from other texts of the same ad (training split)"
    )
    examples_file: Annotated[Path, AfterValidator(Path.absolute)] | None = Field(
        None, description="JSON Lines or Parquet file of your own: original, instruction, rewrite, author"
    )
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the originals that no imitation model learns from")
    max_new_tokens: PositiveInt = 32
    temperature: Temperature = 0.7
    batch_size: PositiveInt = 64

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_base_without_a_key(cls, endpoint: str | None) -> str | None:
        if endpoint and not (re.fullmatch(r"https?://[^@?#\s]+", endpoint) and _names_a_host(endpoint)):
            raise ValueError("must be like https://host/v1, without a key, which is read from OPENAI_API_KEY")
        return endpoint

    @model_validator(mode="after")
    def _endpoint_has_a_model(self) -> TeacherSettings:
        if self.endpoint and not self.model:
            raise ValueError("teacher.endpoint needs teacher.model, the name of a model that it serves")
        return self


class ImitationSettings(Section):
    learning_rate: NonNegativeFloat = 5e-4
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = 16
    lora: LoraSettings = LoraSettings()


class RewardSettings(Section):
    objective: Literal["pairwise", "pointwise"] = Field(
        "pairwise",
        description="Bradley-Terry on pairs, or regression on log CTR weighted by impressions (the ablation)",
    )
    hard_labels: bool = Field(False, description="the better side of a pair counts as better with certainty")
    margin: NonNegativeFloat = Field(0.0, description="log odds by which the better side must win to cost little")
    max_p_value: float | None = Field(None, gt=0, le=1, description="train on pairs this significant. None: on all")
    uniform_weights: bool = Field(False, description="all pairs count alike, whatever their exposure")
    length_decorrelation: NonNegativeFloat = Field(
        0.0,
        description="weight of the squared correlation of reward and length differences in the loss; above 0 all is "
        "encoded twice",
    )
    learning_rate: NonNegativeFloat = 5e-4
    head_learning_rate: NonNegativeFloat = 1e-2
    epochs: PositiveInt = 2
    patience: PositiveInt = Field(
        2, description="epochs without a better validation loss after which training stops; the best one is kept"
    )
    tokens_per_batch: PositiveInt = Field(512, description="tokens of one optimiser step, on all ranks together")
    tokens_per_forward: PositiveInt = Field(2048, description="tokens encoded at once, which bounds memory")
    compile: bool = Field(
        False, description="torch.compile the layers: a minute or two at the start, faster steps on an accelerator"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute a layer's activations again in the backward pass: less memory for a third more time"
    )
    frozen_states_gb: NonNegativeFloat = Field(
        20.0, description="disk for the states of frozen layers, which later epochs start from (top_layers)"
    )
    checkpoint_every: PositiveInt = Field(100, description="optimiser steps between checkpoints")
    max_context_tokens: NonNegativeInt = 16
    max_text_tokens: PositiveInt = 48
    pooling: Literal["last", "mean"] = Field("last", description="of a text's states: the last token's, or their mean")
    layers: PositiveInt | None = Field(
        None,
        description="of the base, from the lowest; a language model's middle layers know more of a text's meaning than "
        "its last ones. None: all",
    )
    sentence_layer: int | None = Field(
        None,
        ge=1,
        le=6,
        description="of all-MiniLM-L6-v2: its mean state of a text stands beside the base's under the heads. None: the "
        "base alone",
    )
    warmup: float = Field(0.1, ge=0, le=1)
    weight_decay: NonNegativeFloat = 0.01
    heads: PositiveInt = Field(
        5,
        description="score heads, each on a bootstrap sample of the ads; they tell how sure a score is. The more, "
        "the less their spread depends on the draw; they cost next to nothing",
    )
    solve_heads: bool = Field(
        False,
        description="heads start at their optimum on the base's own states, which is epoch 0, and not at zero; "
        "the validation ads choose their L2 penalty",
    )
    refit: bool = Field(
        True,
        description="where no epoch is better than solved heads, keep heads that learned from the validation ads too. "
        "Never for the evaluation reward model, which must share no ad with the reward model",
    )
    adapters: PositiveInt = Field(
        1, description="adapters trained one after the other, each with a seed and heads of its own: an ensemble"
    )
    average_adapters: bool = Field(
        False, description="keep one model of their mean weights (WARM), which costs what one costs, not the ensemble"
    )
    lora: LoraSettings | None = Field(
        LoraSettings(),
        description="None: full fine-tuning, of all weights of the base; it wants a tenth of the learning rate or less",
    )

    @model_validator(mode="after")
    def _an_ensemble_shares_its_base(self) -> RewardSettings:
        if self.lora is None and self.adapters > 1 and not self.average_adapters:
            raise ValueError(
                "an ensemble stands on one base, which full fine-tuning (reward.lora: null) changes; keep the members' "
                "mean weights (reward.average_adapters) or train one"
            )
        return self


class PolicySettings(Section):
    algorithm: Algorithm = Field("ppo", description="ours, or one to compare it with (docs/ppo.md)")
    steps: PositiveInt = Field(24, description="PPO steps at most, each with fresh samples")
    prompts_per_step: PositiveInt = 8
    samples_per_prompt: PositiveInt = 5
    max_new_tokens: PositiveInt = 28
    temperature: Temperature = 0.7
    epochs: PositiveInt = 1
    minibatches: PositiveInt = Field(1, description="optimiser steps per epoch; prompts are divided among them")
    tokens_per_forward: PositiveInt = Field(4096, description="tokens encoded at once, which bounds memory")
    learning_rate: NonNegativeFloat = 6e-4
    value_learning_rate: NonNegativeFloat = 2e-3
    kl_coefficient: NonNegativeFloat = Field(
        0.1, description="weight of the per-token KL to the reference in the reward"
    )
    kl_target: PositiveFloat | None = Field(
        None, description="KL in nats per text to which kl_coefficient is steered. None: it stays as it is"
    )
    kl_gain: float = Field(
        0.1, ge=0, lt=5, description="how fast it is steered: its relative change per relative error, of 0.2 at most"
    )
    kl_loss_coefficient: NonNegativeFloat = Field(
        0.0, description="weight of the KL in the loss (estimator k3), beside the one in the reward"
    )
    entropy_coefficient: NonNegativeFloat = Field(0.0, description="weight of the entropy bonus in the loss")
    clip_ratio: PositiveFloat = 0.2
    clip_value: PositiveFloat = 0.2
    value_coefficient: NonNegativeFloat = 0.1
    critic: Literal["linear", "reward-model"] = Field(
        "linear",
        description="what a text that is being written is worth: learned alone, or on top of its reward so far",
    )
    critic_states: Literal["policy", "own"] = Field(
        "policy",
        description="what the critic reads: the policy's states, or those of an adapter of its own on the same base, "
        "with the policy's LoRA settings and learning rate",
    )
    beginning_tokens: PositiveInt = Field(
        4, description="tokens after which the reward model reads a text's beginning anew"
    )
    gamma: float = Field(1.0, ge=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    max_grad_norm: PositiveFloat = 1.0
    normalize_rewards: bool = Field(False, description="rewards less their running mean, over their running deviation")
    clip_rewards: PositiveFloat | None = Field(None, description="rewards are held within this of 0. None: as they are")
    spread_penalty: NonNegativeFloat = Field(
        0.0, description="reward lost per unit of spread between the reward model's heads beyond usual_spread"
    )
    usual_spread: NonNegativeFloat | None = Field(
        None,
        description="spread that costs nothing. None: as much as nine tenths of the validation ads' own texts have. "
        "The judge measures its own",
    )
    length: Literal["none", "linear", "band", "curve"] = Field(
        "band",
        description="what costs: nothing, every token, those outside the band around the original's length, or a "
        "length that people's texts seldom have beside the original's",
    )
    length_penalty: NonNegativeFloat = Field(0.1, description="reward lost per token that costs; curve: per nat")
    usual_length: PositiveFloat | None = Field(
        None,
        description="curve: standard deviation of log(tokens / original's tokens). None: that of the validation ads' "
        "own texts",
    )
    shortest: NonNegativeFloat = Field(0.8, description="lower end of the band, times the original's tokens")
    longest: NonNegativeFloat = Field(1.3, description="upper end of the band, times the original's tokens")
    missing_eos_penalty: NonNegativeFloat = Field(1.0, description="reward lost by a text cut off at the limit")
    repetition_penalty: NonNegativeFloat = Field(
        0.0, description="reward lost by a text of nothing but repeated words; in proportion to their share"
    )
    off_topic_penalty: NonNegativeFloat = Field(
        0.0, description="reward lost per unit of cosine (MiniLM embeddings) that text and original lack"
    )
    least_relevance: float = Field(0.5, ge=-1, le=1, description="to this cosine, from which on nothing is lost")
    copy_penalty: NonNegativeFloat = Field(
        0.0, description="reward lost by a copy of the original; in part by a near one"
    )
    most_relevance: float = Field(0.9, ge=-1, lt=1, description="cosine up to which a text is no near copy")
    formula_penalty: NonNegativeFloat = Field(
        0.0,
        description="reward lost by a text with a word pair (or the first word) that all other originals' texts have "
        "too; in proportion to their share",
    )
    judge_every: PositiveInt = Field(6, description="steps between judgements by the evaluation reward model")
    judge_prompts: PositiveInt = Field(32, description="originals of the validation split that it judges on")
    judge_samples: PositiveInt = Field(4, description="texts for each of them")
    kl_budget: PositiveFloat = Field(5.0, description="KL in nats per text beyond which no policy is kept")
    patience: PositiveInt = Field(2, description="judgements that bring nothing better after which training stops")
    checkpoint_every: PositiveInt = Field(1, description="PPO steps between checkpoints")
    sampler: Literal["own", "vllm"] = Field(
        "own", description="what draws the texts: our own decoding, or a vLLM server beside the trainer"
    )
    lora: LoraSettings = LoraSettings()

    @model_validator(mode="after")
    def _the_band_has_an_inside(self) -> PolicySettings:
        if self.shortest > self.longest:
            raise ValueError(f"policy.shortest ({self.shortest:g}) is above policy.longest ({self.longest:g})")
        return self

    @model_validator(mode="after")
    def _there_is_a_coefficient_to_steer(self) -> PolicySettings:
        if self.kl_target is not None and not self.kl_coefficient:
            raise ValueError(
                "policy.kl_target steers policy.kl_coefficient by factors, and 0 stays 0: set it above 0, or leave "
                "kl_target out"
            )
        return self

    @model_validator(mode="after")
    def _dpo_has_a_beta(self) -> PolicySettings:
        if self.algorithm == "dpo" and not self.kl_coefficient:
            raise ValueError(
                "policy.kl_coefficient is the beta of policy.algorithm dpo, which learns nothing at 0: set it above 0, "
                "such as 0.1"
            )
        return self


class EvaluationSettings(Section):
    originals: PositiveInt = Field(48, description="test-split originals for which both policies write suggestions")
    samples_per_original: PositiveInt = 3
    batch_size: PositiveInt = 128


class ExperimentSettings(Section):
    advertisers: PositiveInt = Field(6000, description="advertisers randomised between the arms")
    seed: NonNegativeInt = 7


class Settings(Section):
    profile: str
    home: Path = Field(description="folder of everything the profile writes: RLPF_HOME/<profile>")
    source: Literal["market", Format] = "market"
    data: tuple[Path, ...] = Field((), description="files to ingest; none for the simulated market")
    keep_ingested: bool = Field(True, description="files ingested before stay; False: only those of `data`")
    seed: int = Field(13, ge=0, lt=MOST_SEED)
    market: MarketSettings = MarketSettings()
    ingest: IngestSettings = IngestSettings()
    pairs: PairSettings = PairSettings()
    base: BaseModelSettings = BaseModelSettings()
    teacher: TeacherSettings = TeacherSettings()
    imitation: ImitationSettings = ImitationSettings()
    reward: RewardSettings = RewardSettings()
    policy: PolicySettings = PolicySettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    experiment: ExperimentSettings = ExperimentSettings()

    @property
    def instance(self) -> Path:
        """RLPF_HOME: shared by the profiles (Dagster's storage, mlflow.db, converted base models)."""
        return self.home.parent

    @property
    def cache(self) -> Path:
        return self.instance / "cache"

    @property
    def warehouse(self) -> Path:
        return self.home / "warehouse.duckdb"

    @property
    def mlflow_uri(self) -> str:
        path = str(self.instance / "mlflow.db").replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{path}"

    @property
    def has_planted_truth(self) -> bool:
        return self.source == "market"
