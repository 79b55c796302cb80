"""The tables of the pipeline: every column's name, type, unit and meaning, in one place.

Sources fill `RAW_MULTITEXT_ADS`; SQL in `sql/` turns it into those of the data group, which training reads; training,
evaluation and the market write the others. Dagster's column schemas are made from here. Standard library only:
every other module may import this one, and it imports none of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """One column: `type` is DuckDB's name for it, `unit` is empty where the value has none."""

    name: str
    type: str
    description: str
    unit: str = ""
    nullable: bool = False


class Table(NamedTuple):
    """One table: `grain` says what one row is."""

    name: str
    grain: str
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


AD_ID = Column(
    "ad_id",
    "VARCHAR",
    "The ad: everything but the text is held constant within it; source:id where several sources use the id",
)
ADVERTISER_ID = Column(
    "advertiser_id", "VARCHAR", "Who pays for the ad; null where the source does not say", nullable=True
)
SOURCE = Column(
    "source", "VARCHAR", "Where it came from: market, upworthy, meta-ads, google-ads, generic, or what the file says"
)
CONTEXT = Column(
    "context",
    "VARCHAR",
    "What all variants of the ad share and a reader sees or knows (industry, excerpt)",
    nullable=True,
)
VARIANT_ID = Column("variant_id", "VARCHAR", "One text of the ad; unique within the ad")
TEXT = Column("text", "VARCHAR", "The text shown: Unicode NFC, white space collapsed, never empty")
IMPRESSIONS = Column("impressions", "BIGINT", "Times the text was shown; at least 1", "impressions")
CLICKS = Column("clicks", "BIGINT", "Clicks on it; between 0 and impressions", "clicks")
SPLIT = Column(
    "split",
    "VARCHAR",
    "train, validation, test, or evaluation (only the evaluation reward model learns from it); one per cluster of ads",
)

SPLITS = ("train", "validation", "test", "evaluation")
ARMS = ("control", "treatment")

RAW_MULTITEXT_ADS = Table(
    "raw_multitext_ads",
    "one row per accepted source row: a variant of an ad in a period",
    (
        SOURCE,
        AD_ID,
        ADVERTISER_ID,
        CONTEXT,
        VARIANT_ID,
        TEXT,
        IMPRESSIONS,
        CLICKS,
        Column(
            "period", "VARCHAR", "Day or week of the row as the source names it; null where it has none", nullable=True
        ),
    ),
)

REJECTS = Table(
    "rejects",
    "one row per refused source row",
    (
        Column("source_file", "VARCHAR", "File the row came from, as given by the user"),
        Column(
            "row_number",
            "BIGINT",
            "Data row in that file, counted from 1; null where the file cannot tell",
            nullable=True,
        ),
        Column("reason", "VARCHAR", "Why it was refused, in words"),
        Column("raw_row", "VARCHAR", "The row as it was read, as JSON or as the raw line", nullable=True),
    ),
)

AD = Column("ad", "INTEGER", "Number of the ad, its place in the order of ad_id, from 0")

CLUSTER = Column(
    "cluster", "INTEGER", "Number of the first ad of its cluster: ads tied by an advertiser or a near-duplicate text"
)

ADS = Table("ads", "one row per ad, in order", (AD, AD_ID, SOURCE, ADVERTISER_ID, CONTEXT, CLUSTER, SPLIT))

VARIANTS = Table(
    "variants",
    "one row per ad and distinct text, in order",
    (
        Column("variant", "INTEGER", "Number of the variant, its place in the order of ad and variant_id, from 0"),
        AD,
        VARIANT_ID,
        TEXT,
        IMPRESSIONS,
        CLICKS,
        SPLIT,
    ),
)

EFFECT = Column(
    "effect",
    "DOUBLE",
    "Difference of posterior mean log odds (left - right), about the log of the CTRs' ratio",
    "log odds",
)
Z = Column("z", "DOUBLE", "Difference of posterior mean log odds (left - right) over its standard deviation")
P_LEFT_BETTER = Column(
    "p_left_better", "DOUBLE", "Posterior probability that the left variant's CTR is the higher one", "probability"
)
P_VALUE = Column(
    "p_value",
    "DOUBLE",
    "Two-sided p-value of equal CTRs (pooled two-proportion z test); 1 where they are equal",
    "probability",
)
WEIGHT = Column("weight", "DOUBLE", "Exposure weight: log(1 + smaller side's impressions), times evenness if so set")

PAIRS = Table(
    "pairs",
    "one row per unordered pair of variants of one ad, in order of both",
    (
        Column("left_variant", "INTEGER", "Number of the left variant, the smaller one"),
        Column("right_variant", "INTEGER", "Number of the right variant"),
        Column("exposure", "BIGINT", "Impressions of the side that has fewer", "impressions"),
        EFFECT,
        Z,
        P_LEFT_BETTER,
        P_VALUE,
        WEIGHT,
        SPLIT,
    ),
)

VARIANT_PERFORMANCE = Table(
    "variant_performance",
    "one row per ad and distinct text",
    (
        SOURCE,
        AD_ID,
        ADVERTISER_ID,
        CONTEXT,
        VARIANT_ID,
        TEXT,
        IMPRESSIONS,
        CLICKS,
        Column("ctr", "DOUBLE", "clicks / impressions", "clicks per impression"),
        SPLIT,
    ),
)

DELIVERY = Table(
    "delivery",
    "one row per ad with several texts",
    (
        AD_ID,
        Column("variants", "BIGINT", "Texts of the ad", "texts"),
        Column("evenness", "DOUBLE", "Effective number of texts over their number; 1: all had the same impressions"),
        Column(
            "early_winner_gain",
            "DOUBLE",
            "Later less early share of impressions of the text with the best CTR in the first period; null with one",
            nullable=True,
        ),
    ),
)

CTR_PRIORS = Table(
    "ctr_priors",
    "one row per source",
    (
        SOURCE,
        Column("ads", "BIGINT", "Ads of the source", "ads"),
        Column("ctr", "DOUBLE", "(Clicks + 1/2) / (impressions + 1) over all its texts", "clicks per impression"),
        Column(
            "correlation",
            "DOUBLE",
            "Intra-class correlation of clicks within a text, given its ad; null where no ad has two texts and clicks",
            nullable=True,
        ),
        Column(
            "prior_strength",
            "DOUBLE",
            "Impressions that the Beta prior of a text's CTR is worth; its mean is the CTR of the text's ad",
            "impressions",
        ),
    ),
)

LABEL_COUNTS = Table(
    "label_counts",
    "one row per split, decade of exposure and significance",
    (
        SPLIT,
        Column(
            "exposure_from",
            "BIGINT",
            "Pairs whose smaller side has this many impressions to ten times as many; null for equal observed CTRs",
            "impressions",
            nullable=True,
        ),
        Column("significant", "BOOLEAN", "p-value below 0.05"),
        Column("pairs", "BIGINT", "Pairs of that kind", "pairs"),
        Column("weight", "DOUBLE", "Sum of their weights"),
        Column("sure", "DOUBLE", "Sum of the probability that the favoured side is better: noise ceiling times pairs"),
    ),
)

PREFERENCE_PAIRS = Table(
    "preference_pairs",
    "one row per unordered pair of variants of one ad",
    (
        AD_ID,
        Column("left_id", "VARCHAR", "variant_id of the left side; the smaller of the two ids"),
        Column("right_id", "VARCHAR", "variant_id of the right side"),
        Column("left_impressions", "BIGINT", "Impressions of the left variant", "impressions"),
        Column("left_clicks", "BIGINT", "Clicks of the left variant", "clicks"),
        Column("right_impressions", "BIGINT", "Impressions of the right variant", "impressions"),
        Column("right_clicks", "BIGINT", "Clicks of the right variant", "clicks"),
        EFFECT,
        Z,
        P_LEFT_BETTER,
        P_VALUE,
        WEIGHT,
        SPLIT,
    ),
)

CURATED_EXAMPLES = Table(
    "curated_examples",
    "one row per original text and rewrite",
    (
        Column("original", "VARCHAR", "The advertiser's text"),
        Column("instruction", "VARCHAR", "What the writer was asked to do; null where none was given", nullable=True),
        Column("rewrite", "VARCHAR", "The text written for it"),
        Column("author", "VARCHAR", "human or synthetic"),
        Column("held_out", "BOOLEAN", "Whether it is kept from training, to judge imitation models on"),
    ),
)

IMITATION_REWRITES = Table(
    "imitation_rewrites",
    "one row per model and text that it wrote for a held-out original",
    (
        Column("model", "VARCHAR", "base, v1 or v2"),
        Column("original", "VARCHAR", "The advertiser's text, of a held-out example"),
        Column("instruction", "VARCHAR", "What the model was asked to do; null for the deployed prompt", nullable=True),
        Column("rewrite", "VARCHAR", "The text it wrote; may be empty when it stopped at once"),
        Column("finished", "BOOLEAN", "Whether the model ended it within the limit"),
    ),
)

SUGGESTIONS = Table(
    "suggestions",
    "one row per suggestion of a policy for an original text",
    (
        AD_ID,
        CONTEXT,
        Column("original", "VARCHAR", "The advertiser's text, from the test split"),
        Column("policy", "VARCHAR", "imitation_v2 or adllama"),
        Column("sample", "BIGINT", "Number of the sample for this original, from 0"),
        Column("text", "VARCHAR", "The suggestion; may be empty when the policy stopped at once"),
        Column("tokens", "BIGINT", "Length of the suggestion, its end mark included", "tokens"),
        Column("finished", "BOOLEAN", "Whether the policy ended it within the limit"),
        Column(
            "log_ratio",
            "DOUBLE",
            "Sum of log policy - log reference over its tokens, its mean estimates the KL; of best-of-n a bound",
            "nats",
        ),
        Column("reward", "DOUBLE", "Score by the reward model (optimised against)"),
        Column("evaluation_reward", "DOUBLE", "Score by the evaluation reward model (never optimised against)"),
        Column("reward_spread", "DOUBLE", "Standard deviation over the reward model's heads of the reward", "log odds"),
        Column(
            "planted_ctr",
            "DOUBLE",
            "CTR by the market's click model; null for real ads, whose truth nobody knows",
            "clicks per impression",
            nullable=True,
        ),
        Column(
            "relevance",
            "DOUBLE",
            "Cosine of its sentence embedding with the original's; null without all-MiniLM-L6-v2",
            nullable=True,
        ),
    ),
)

GENERATED_TEXTS = Table(
    "generated_texts",
    "one row per suggestion for a row of the user's file (rlpf generate --input)",
    (
        Column("row", "BIGINT", "Row of the file, from 1"),
        Column("original", "VARCHAR", "Its text"),
        Column("rank", "BIGINT", "From 1; by reward less its spread, without a reward model in the order drawn"),
        Column("text", "VARCHAR", "The suggestion"),
        Column("reward", "DOUBLE", "Gain over the original by the reward model", "log odds", nullable=True),
        Column("reward_spread", "DOUBLE", "Standard deviation of it over heads", "log odds", nullable=True),
    ),
)

REWARD_SCORES = Table(
    "reward_scores",
    "one row per model (or baseline) and text of the test split",
    (
        Column("model", "VARCHAR", "What scored it, by its name in evaluation/reward_model.py"),
        AD_ID,
        VARIANT_ID,
        TEXT,
        IMPRESSIONS,
        CLICKS,
        Column(
            "reward_mean", "DOUBLE", "Mean score over the model's heads; differences within an ad count", "log odds"
        ),
        Column("reward_spread", "DOUBLE", "Standard deviation of the score over heads; 0 with one head", "log odds"),
    ),
)

EXPERIMENT_ADVERTISERS = Table(
    "experiment_advertisers",
    "one row per advertiser of the experiment, totals over its weeks",
    (
        Column("advertiser_id", "VARCHAR", "The advertiser, the unit of randomisation"),
        Column("arm", "VARCHAR", "control (imitation_v2) or treatment (adllama)"),
        IMPRESSIONS,
        CLICKS,
        Column("ads", "BIGINT", "Ads created in the experiment", "ads"),
        Column("variations", "BIGINT", "Texts delivered over all its ads, originals included", "texts"),
        Column("lifetime_ctr", "DOUBLE", "CTR before the experiment; 0 for a new advertiser", "clicks per impression"),
        Column("new_advertiser", "BOOLEAN", "No impressions before the experiment"),
        Column("ads_before", "BIGINT", "Ads created before the experiment", "ads"),
        Column("industry", "VARCHAR", "Industry of the advertiser"),
        Column("expertise", "VARCHAR", "novice, intermediate or expert"),
        Column("budget", "VARCHAR", "low, medium or high"),
        Column("business_account", "BOOLEAN", "Advertises from a business account"),
        Column("account_age_years", "DOUBLE", "Age of the account when the experiment starts", "years"),
    ),
)
