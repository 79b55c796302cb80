"""How the figures were made: formulas and references of the report's last sections."""

from __future__ import annotations

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.abtest.evidence import FEW, FEWEST_CARRYING
from rlpf_pipeline.abtest.sequential import MIXTURE

STATUS = {
    "converged": "log-binomial regression, at an inner maximum of its likelihood",
    "boundary": "log-binomial regression, at a maximum on the boundary, where fitted means are 1 and errors hold them",
    "modified-poisson": "modified Poisson regression, because the log-binomial likelihood has no maximum, or several",
}

FORMULAS = (
    "kᵢ ~ Binomial(nᵢ, μᵢ), log μᵢ = xᵢ′β, relative risk = exp(β of treatment)",
    "V = A⁻¹ B A⁻¹, A = −∂²ℓ/∂β∂β′, B = Σᵢ sᵢsᵢ′/(1 − hᵢ)², sᵢ = xᵢ(kᵢ − nᵢμᵢ)/(1 − μᵢ), hᵢ leverage   (HC3)",
    "HC1: N/(N−p) · A⁻¹ (Σᵢ sᵢsᵢ′) A⁻¹",
    "quasi = naive · √(Pearson χ²/(N−p));   logistic: Σ nᵢp(xᵢ,1) / Σ nᵢp(xᵢ,0)   (g-computation)",
    "delta method: var(u₁)/N₁ + var(u₀)/N₀, u = (k − Rn)/(R·mean n), R = Σk/Σn",
    f"confidence sequence: ± s·√((1 + s²/τ²)·log((1 + τ²/s²)/α²)), τ = {MIXTURE}",
    "minimum detectable effect = exp((1.960 + 0.842)·SE) − 1;   effective advertisers = (Σn)²/Σn²",
)

REFERENCES = (
    "Meta’s study of RLPF: 10 weeks, 34,849 advertisers, log-binomial regression of advertiser-level CTR.",
    "Wacholder S. (1986). Binomial regression in GLIM. American Journal of Epidemiology 123, 174–184.",
    "Huber P. J. (1967); White H. (1980). Econometrica 48, 817–838. The sandwich.",
    "MacKinnon J. G., White H. (1985). Journal of Econometrics 29, 305–325. HC1 and HC3.",
    "Deddens J. A., Petersen M. R., Lei X. (2003). Prevalence ratios when PROC GENMOD does not converge. SUGI 28.",
    "Zou G. (2004). A modified Poisson regression approach. American Journal of Epidemiology 159, 702–706.",
    "Lin W. (2013). Agnostic notes on regression adjustments. Annals of Applied Statistics 7, 295–318.",
    "Deng A. et al. (2013). CUPED. WSDM. Deng A., Knoblich U., Lu J. (2018). Delta method in metric analytics. KDD.",
    "Chung E., Romano J. P. (2013). Robust permutation tests. Annals of Statistics 41, 484–507.",
    "Hansen B. B., Bowers J. (2008). Covariate balance. Statistical Science 23, 219–236.",
    "Fabijan A. et al. (2019). Diagnosing sample ratio mismatch. KDD.",
    "White I. R., Thompson S. G. (2005). Missing baseline measurements. Statistics in Medicine 24, 993–1007.",
    "Kish L. (1965). Survey Sampling. Wiley. Effective sample size.",
    "Waudby-Smith I. et al. (2024). Asymptotic confidence sequences. Annals of Statistics 52.",
    "Benjamini Y., Hochberg Y. (1995). Journal of the Royal Statistical Society B 57, 289–300.",
    "Gelman A., Carlin J. (2014). Beyond power calculations. Perspectives on Psychological Science 9, 641–651.",
)


def model_paragraphs(analysis: ExperimentAnalysis) -> tuple[str, ...]:
    model = analysis.model
    return (
        "Estimand: the ratio of clicks per impression that the experiment’s advertisers would have under treatment and "
        "under control, impressions as they fell. The log-binomial model estimates it if one relative risk holds for "
        "all, or clicks are rare; otherwise advertisers with high rates weigh more in it, and the logistic row of the "
        f"robustness table (g-computation) is the ratio itself. Model: {STATUS[model.status]}; {model.advertisers:,} "
        f"advertisers, {model.columns} columns: {model.formula}",
        f"A column log_… of a rate is log(rate + {model.lifetime_ctr_offset}), of a count log(1 + count); others "
        "are in standard deviations from their mean. The error is the advertiser-level sandwich: advertisers are "
        "independent, impressions of one advertiser are not. Its form is HC3, which allows for the leverage of "
        "advertisers with many impressions; the study’s, HC1, does not.",
        f"Sample ratio: χ² test of the planned shares (binomial where an arm expects fewer than {FEW}), failing below "
        "p = 0.001. Balance: joint test of the standardised differences by χ², or by random assignments where the "
        f"smaller arm expects fewer than {FEWEST_CARRYING:g} advertisers like the rarest, failing below p = 0.001. "
        "Randomisation inference and the A/A certificate share 1,000 random assignments of the same advertisers; in "
        "each the report’s own estimator is computed.",
    )
