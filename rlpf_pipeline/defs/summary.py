"""The table at the end of `rlpf run`: what the manifests say, in the order in which it came about. Never computes."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group
from rich.table import Table

from rlpf_pipeline.artifacts import Metric, Metrics
from rlpf_pipeline.defs.stages import manifest_of
from rlpf_pipeline.defs.steps import NO_EXPERIMENT
from rlpf_pipeline.settings import Settings


def summary(settings: Settings) -> Group:
    """Figures of the profile's last run, as tables; on real data there is neither planted CTR nor experiment."""
    return Group(data_table(settings), policy_table(settings), *experiment_table(settings))


def data_table(settings: Settings) -> Table:
    table = titled(f"Data and reward model (profile {settings.profile})", "")
    for label, stage, metric in (
        ("rows read", "raw_multitext_ads", "read"),
        ("rows rejected", "raw_multitext_ads", "rejected"),
        ("ads", "variant_performance", "ads"),
        ("variants", "variant_performance", "variants"),
        ("pairs", "preference_pairs", "pairs"),
    ):
        table.add_row(label, count(manifest_of(stage, settings).metrics[metric]))
    table.add_section()
    evaluated = manifest_of("reward_model_evaluation", settings).metrics
    table.add_row("reward model: pairwise accuracy", figure(evaluated["accuracy"]))
    table.add_row("  chance", figure(0.5))
    table.add_row("  TF-IDF, logistic", figure(evaluated["tfidf_accuracy"]))
    table.add_row("  noise ceiling", figure(evaluated["noise_ceiling"]))
    table.add_row("  CTR lift of the text it picks", percent(evaluated.get("selection_lift")))
    table.add_row("  of an oracle's pick", percent(evaluated.get("oracle_lift")))
    table.add_row("evaluation reward model: pairwise accuracy", figure(evaluated["evaluation_accuracy"]))
    return table


def policy_table(settings: Settings) -> Table:
    table = titled("Policies on originals of the test split", "imitation v2", "AdLlama")
    metrics = manifest_of("policy_evaluation", settings).metrics
    rows: list[tuple[str, str, Callable[[Metric], str]]] = [
        ("reward", "reward", figure),
        ("evaluation reward", "evaluation_reward", figure),
        ("length, tokens", "tokens", figure),
        ("distinct suggestions, share", "distinct", figure),
        ("that begin with the same word, share", "same_first_word", figure),
        ("wording shared across originals, share", "shared_wording", figure),
        ("copies of the original, share", "copies", figure),
    ]
    if "adllama_relevance" in metrics:
        rows.append(("relevance, cosine with the original", "relevance", figure))
    if settings.has_planted_truth:
        rows.append(("true (planted) CTR", "planted_ctr", percent))
    for label, name, shown in rows:
        table.add_row(label, shown(metrics[f"imitation_{name}"]), shown(metrics[f"adllama_{name}"]))
    table.add_row("KL to imitation v2, nats", figure(0.0), figure(metrics["adllama_kl"]))
    return table


def experiment_table(settings: Settings) -> list[Table]:
    if not settings.has_planted_truth:
        return []
    table = titled("A/B experiment (simulated)", "")
    metrics = manifest_of("ab_report", settings).metrics
    table.add_row("relative risk of CTR", figure(metrics["relative_risk"]))
    table.add_row("  95 % interval", f"{figure(metrics['low'])} to {figure(metrics['high'])}")
    table.add_row("  planted", figure(manifest_of("ab_experiment", settings).metrics["planted_relative_risk"]))
    return [table]


def titled(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns))
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def verdicts(settings: Settings) -> list[str]:
    """In words: who wins by each judge. A loss or a draw is said as plainly as a win."""
    metrics = manifest_of("policy_evaluation", settings).metrics
    said = [preferred("The evaluation reward model", metrics, "evaluation_reward")]
    if not settings.has_planted_truth:
        return [*said, NO_EXPERIMENT]
    verdict = manifest_of("ab_report", settings).metrics["verdict"]
    return [*said, preferred("The planted truth", metrics, "planted_ctr"), AB_VERDICTS[str(verdict)]]


AB_VERDICTS = {
    "raises": "The A/B test finds that AdLlama RAISES CTR.",
    "lowers": "The A/B test finds that AdLlama LOWERS CTR: it is not better than imitation v2.",
    "undecided": "The A/B test is undecided: its interval holds 1, so it does not show AdLlama to be better.",
    "invalid": "The A/B test is NOT valid: a validity check failed, so its relative risk must not be used.",
}


def preferred(judge: str, metrics: Metrics, name: str) -> str:
    """`<name>_difference` is AdLlama minus imitation v2, paired by original."""
    difference = float(metrics[f"{name}_difference"] or 0.0)
    error = metrics[f"{name}_difference_standard_error"]
    verb = "prefers" if difference > 0 else "does NOT prefer"
    if error is None:
        sure = "of a single original, so nobody knows how sure"
    else:
        hedge = ", within two standard errors of none" if abs(difference) <= 2 * float(error) else ""
        sure = f"standard error {float(error):.2g}{hedge}"
    return f"{judge} {verb} AdLlama to imitation v2 (difference {difference:+.4g}, {sure})."


def count(value: Metric) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def figure(value: Metric) -> str:
    return f"{value:z.3f}" if isinstance(value, int | float) else "–"


def percent(value: Metric) -> str:
    return f"{100 * value:z.3f} %" if isinstance(value, int | float) else "–"
