"""The table at the end of `rlpf run`: what the manifests say, in the order in which it came about. Never computes more
than a difference to show."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from rlpf_pipeline.artifacts import Manifest, read_manifest
from rlpf_pipeline.defs.stages import folder_of
from rlpf_pipeline.settings import Settings

Value = float | int | str | bool | None


def summary(settings: Settings) -> Table:
    """Figures of the profile's last run. Stages without output (no experiment on real data) have no row."""
    table = Table(title=f"RLPF, profile {settings.profile}", show_lines=False)
    for column in ("", "imitation v2", "AdLlama"):
        table.add_column(column, justify="left" if not column else "right")
    add_data(table, settings)
    add_reward_model(table, settings)
    add_policies(table, settings)
    add_experiment(table, settings)
    return table


def add_data(table: Table, settings: Settings) -> None:
    for label, stage, metric in (
        ("rows read", "raw_multitext_ads", "read"),
        ("rows rejected", "raw_multitext_ads", "rejected"),
        ("ads", "variant_performance", "ads"),
        ("variants", "variant_performance", "variants"),
        ("pairs", "preference_pairs", "pairs"),
    ):
        table.add_row(label, count(manifest_metric(settings, stage, metric)))
    table.add_section()


def add_reward_model(table: Table, settings: Settings) -> None:
    evaluated = manifest(settings, "reward_model_evaluation")
    if not evaluated:
        return
    metrics = evaluated.metrics
    table.add_row("reward model accuracy (chance 0.500)", figure(metrics["accuracy"]))
    table.add_row("  noise ceiling of accuracy", figure(metrics["noise_ceiling"]))
    table.add_row("  evaluation reward model accuracy", figure(metrics["evaluation_accuracy"]))
    table.add_section()


def add_policies(table: Table, settings: Settings) -> None:
    evaluated = manifest(settings, "policy_evaluation")
    if not evaluated:
        return
    metrics = evaluated.metrics
    rows: list[tuple[str, str, Callable[[Value], str]]] = [
        ("reward", "reward", figure),
        ("evaluation reward", "evaluation_reward", figure),
        ("length (tokens)", "tokens", figure),
        ("distinct suggestions", "distinct", figure),
    ]
    if settings.has_planted_truth:
        rows.append(("true (planted) CTR", "planted_ctr", percent))
    for label, name, shown in rows:
        table.add_row(label, shown(metrics[f"imitation_{name}"]), shown(metrics[f"adllama_{name}"]))
    table.add_row("KL to imitation v2 (nats)", "0", figure(metrics["adllama_kl"]))
    table.add_section()


def add_experiment(table: Table, settings: Settings) -> None:
    report = manifest(settings, "ab_report") if settings.has_planted_truth else None
    if not report:
        table.add_row("A/B experiment", "skipped", "no planted truth")
        return
    metrics = report.metrics
    interval = f"{figure(metrics['low'])} to {figure(metrics['high'])}"
    table.add_row("A/B relative risk of CTR", interval, figure(metrics["relative_risk"]))
    table.add_row("  planted", "", figure(manifest_metric(settings, "ab_experiment", "planted_relative_risk")))


def verdicts(settings: Settings) -> list[str]:
    """In words: who wins by each judge. A loss or a draw is said as plainly as a win."""
    said = []
    evaluated = manifest(settings, "policy_evaluation")
    if evaluated:
        said.append(preferred("The evaluation reward model", evaluated.metrics, "evaluation_reward"))
        if settings.has_planted_truth:
            said.append(preferred("The planted truth", evaluated.metrics, "planted_ctr"))
    report = manifest(settings, "ab_report") if settings.has_planted_truth else None
    if report:
        said.append(AB_VERDICTS[str(report.metrics["verdict"])])
    return said


AB_VERDICTS = {
    "raises": "The A/B test finds that AdLlama RAISES CTR.",
    "lowers": "The A/B test finds that AdLlama LOWERS CTR: it is not better than imitation v2.",
    "undecided": "The A/B test is undecided: its interval holds 1, so it does not show AdLlama to be better.",
    "invalid": "The A/B test is NOT valid: a validity check failed, so its relative risk must not be used.",
}


def preferred(judge: str, metrics: dict[str, Value], name: str) -> str:
    """Uses the paired difference and its standard error where the evaluation reports them."""
    imitation, adllama = metrics[f"imitation_{name}"], metrics[f"adllama_{name}"]
    difference = number(adllama) - number(imitation)
    error = number(metrics.get(f"{name}_difference_standard_error") or 0.0)
    verb = "prefers" if difference > 0 else "does NOT prefer"
    hedge = ", within two standard errors of none" if abs(difference) <= 2 * error else ""
    figures = f"difference {difference:+.4g}, standard error {error:.2g}{hedge}"
    return f"{judge} {verb} AdLlama to imitation v2 ({figures})."


def manifest(settings: Settings, name: str) -> Manifest | None:
    return read_manifest(folder_of(name, settings))


def manifest_metric(settings: Settings, name: str, metric: str) -> Value:
    found = manifest(settings, name)
    return found.metrics[metric] if found else None


def number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def count(value: Value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def figure(value: Value) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def percent(value: Value) -> str:
    return f"{100 * value:.3f} %" if isinstance(value, int | float) else "–"
