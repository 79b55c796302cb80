"""Groups `imitation`, `reward` and `policy`: everything that is trained, and the examples it is trained on."""

from rlpf_pipeline import contracts
from rlpf_pipeline.defs.assets.jobs import job_asset
from rlpf_pipeline.defs.metadata import described

TRAINED = {"pytorch", "huggingface", "mlflow"}

curated_examples = job_asset(
    "curated_examples",
    "Originals with rewrites to imitate: the teacher's, each under one instruction, and human-written ones (other "
    "texts of the same ad). From the training split only.",
    kinds={"pytorch", "parquet"},
    metadata=described(contracts.CURATED_EXAMPLES),
)
imitation_v1 = job_asset(
    "imitation_v1", "Imitation model of the first launch: fine-tuned on the synthetic examples only.", kinds=TRAINED
)
imitation_v2 = job_asset(
    "imitation_v2",
    "Imitation model with human-written examples too: AdLlama's starting point, its reference, and the control arm.",
    kinds=TRAINED,
)
reward_model = job_asset(
    "reward_model",
    "Bradley-Terry reward model on the preference pairs of the training split: what PPO optimises.",
    kinds=TRAINED,
)
evaluation_reward_model = job_asset(
    "evaluation_reward_model",
    "The same model learned from disjoint ads and never optimised against: does the policy really get better, or only "
    "better at pleasing the reward model?",
    kinds=TRAINED,
)
pointwise_reward_model = job_asset(
    "pointwise_reward_model",
    "The ablation of the study: the same model regressed on each text's log CTR, weighted by impressions, from the "
    "same ads with the same budget. Nothing is optimised against it.",
    kinds=TRAINED,
)
adllama = job_asset(
    "adllama",
    "The policy trained by RLPF: PPO from imitation v2 against the reward model, with KL and length penalty. The "
    "evaluation reward model stops the run and picks the policy; the curve of both rewards and the KL lies beside it.",
    kinds=TRAINED,
)
