import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rlpf_pipeline.arrow_tables import ARROW_TYPES, arrow_table
from rlpf_pipeline.contracts import EXPERIMENT_ADVERTISERS, SUGGESTIONS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.market.assignment import assign
from rlpf_pipeline.market.click_model import PlantedClickModel
from rlpf_pipeline.market.experiment import simulate_experiment
from rlpf_pipeline.settings import ExperimentSettings, MarketSettings

MARKET = MarketSettings()
EXPERIMENT = ExperimentSettings(advertisers=1500)
ORIGINALS = {
    ("ad-1", "Industry: Bakery"): "Maple Oven offers sourdough loaves baked before dawn.",
    ("ad-2", "Industry: Bakery"): "Finch Bakehouse has birthday cakes in Ashford.",
    ("ad-3", "Industry: Bookshop"): "Cedar Pages: crime novels with twists on every page.",
}
PLAIN = ("{} Quality service.", "{} Customer satisfaction is our priority.", "{} A wide range of solutions for all.")
STRONG = (
    "Tired of waiting? {} Visit us today.",
    "You will love it. {}",
    "Want something good? {} Book your place now.",
)


def suggestions(control=PLAIN, treatment=STRONG, originals=ORIGINALS) -> pa.Table:
    rows = [
        {
            "ad_id": ad_id, "context": context, "original": original, "policy": policy, "sample": sample,
            "text": template.format(original), "tokens": 12, "finished": True, "log_ratio": 0.0, "reward": 0.0,
            "evaluation_reward": 0.0, "reward_spread": 0.0, "planted_ctr": None, "relevance": None,
        }
        for (ad_id, context), original in originals.items()
        for policy, templates in (("imitation_v2", control), ("adllama", treatment))
        for sample, template in enumerate(templates)
    ]  # fmt: skip
    return arrow_table(SUGGESTIONS, {name: [row[name] for row in rows] for name in SUGGESTIONS.column_names})


@pytest.fixture(scope="module")
def result():
    return simulate_experiment(EXPERIMENT, MARKET, suggestions())


def test_the_table_fulfils_the_contract(result):
    table = result.advertisers
    assert table.schema.names == list(EXPERIMENT_ADVERTISERS.column_names)
    assert [table.schema.field(c.name).type for c in EXPERIMENT_ADVERTISERS.columns] == [
        ARROW_TYPES[c.type] for c in EXPERIMENT_ADVERTISERS.columns
    ]
    rows = table.to_pandas()
    assert not rows.isna().any().any()
    assert rows.advertiser_id.is_unique
    assert len(rows) == EXPERIMENT.advertisers
    assert (rows.clicks <= rows.impressions).all()
    assert (rows.clicks >= 0).all()
    assert (rows.impressions > 0).all()
    assert rows.variations.between(rows.ads, 5 * rows.ads).all()
    assert (rows.lifetime_ctr[rows.new_advertiser] == 0).all()
    assert rows.arm.tolist() == assign(rows.advertiser_id, f"experiment-{EXPERIMENT.seed}").tolist()


def test_the_seed_fixes_every_row_whatever_the_order_of_suggestions(result):
    shuffled = suggestions().take(np.random.default_rng(0).permutation(suggestions().num_rows))
    again = simulate_experiment(EXPERIMENT, MARKET, shuffled)
    assert again.truth == result.truth
    assert again.advertisers.equals(result.advertisers)


@pytest.mark.parametrize("texts", [PLAIN, STRONG, ("", "", "")])
def test_equal_suggestions_have_a_planted_relative_risk_of_exactly_one(texts):
    assert simulate_experiment(EXPERIMENT, MARKET, suggestions(texts, texts)).truth.relative_risk == 1.0


def test_better_texts_raise_the_planted_ctr_and_the_observed_one(result):
    truth = result.truth
    assert truth.relative_risk == pytest.approx(truth.treatment_ctr / truth.control_ctr)
    assert truth.relative_risk > 1.05
    assert simulate_experiment(EXPERIMENT, MARKET, suggestions(STRONG, PLAIN)).truth.relative_risk < 0.95
    rows = result.advertisers.to_pandas().query("not new_advertiser and lifetime_ctr > 0")
    adjusted = np.log((rows.clicks + 1) / (rows.impressions + 1)) - np.log(rows.lifetime_ctr)
    arms = adjusted.groupby(rows.arm)
    standard_error = np.sqrt((arms.var() / arms.size()).sum())
    difference = arms.mean()["treatment"] - arms.mean()["control"]
    assert difference == pytest.approx(np.log(truth.relative_risk), abs=4 * standard_error)


def test_truth_is_the_mean_planted_ctr_where_all_advertisers_run_the_same_text():
    one = {("ad-1", "Industry: Bakery"): ORIGINALS[("ad-1", "Industry: Bakery")]}
    market = MARKET.model_copy(update={"advertiser_sigma": 0.0})
    truth = simulate_experiment(EXPERIMENT, market, suggestions(("",), ("",), one)).truth
    original = list(one.values())
    planted = PlantedClickModel.of(market).ctr(original, original, 0.0, market.base_ctr, ["Bakery"])
    assert truth.control_ctr == pytest.approx(planted[0])


def test_treatment_changes_neither_covariates_nor_ads(result):
    other = simulate_experiment(EXPERIMENT, MARKET, suggestions(PLAIN, PLAIN)).advertisers
    before = [c for c in EXPERIMENT_ADVERTISERS.column_names if c not in ("clicks", "variations")]
    assert other.select(before).equals(result.advertisers.select(before))


def test_past_ctr_predicts_ctr(result):
    rows = result.advertisers.to_pandas().query("lifetime_ctr > 0")
    assert np.corrcoef(np.log(rows.lifetime_ctr), np.log((rows.clicks + 1) / rows.impressions))[0, 1] > 0.8


def test_a_missing_policy_is_named():
    table = suggestions()
    gone = pc.and_(pc.equal(table["ad_id"], "ad-2"), pc.equal(table["policy"], "adllama"))
    with pytest.raises(UserError, match=r"'ad-2'.*'adllama'"):
        simulate_experiment(EXPERIMENT, MARKET, table.filter(pc.invert(gone)))


def test_no_suggestions_are_refused():
    with pytest.raises(UserError, match="no suggestions"):
        simulate_experiment(EXPERIMENT, MARKET, suggestions().slice(0, 0))
