"""Group `evaluation`: how good the reward models and the policies are on ads that nothing learned from."""

from rlpf_pipeline import contracts
from rlpf_pipeline.defs.assets.jobs import job_asset
from rlpf_pipeline.defs.metadata import described

imitation_evaluation = job_asset(
    "imitation_evaluation",
    "The base chat model and both imitation models on held-out examples: perplexity of synthetic and human rewrites, "
    "copies, faithfulness (new numbers, new names), and whether an instruction is kept.",
    kinds={"pytorch", "parquet"},
    metadata=described(contracts.IMITATION_REWRITES),
)
reward_model_evaluation = job_asset(
    "reward_model_evaluation",
    "The reward models on the test split beside baselines: accuracy and the noise ceiling, calibration, CTR lift of "
    "the picked text, and whether length or style fools them.",
    kinds={"pytorch", "parquet"},
    metadata=described(contracts.REWARD_SCORES),
)
policy_evaluation = job_asset(
    "policy_evaluation",
    "Suggestions of imitation v2 and AdLlama for originals of the test split: reward, evaluation reward, KL, length, "
    "diversity, and the planted CTR where the market is simulated.",
    kinds={"pytorch", "parquet"},
    metadata=described(contracts.SUGGESTIONS),
)
