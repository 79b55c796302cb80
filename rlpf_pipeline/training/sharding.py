"""A frozen base divided among the ranks (FSDP2), for one that is too large for a GPU.

A rank holds its part of every layer's weights; all gather a layer's whole weights to pass through it, and let go of
them behind it. So all must pass equally often: a rank with fewer batches passes some more for the others
(`idle_passes`), and sampling goes on until the last rank's texts have ended. Adapters, embeddings and output weights
stay whole: what is trained, and its gradients, are as without (Zhao et al. 2023, https://arxiv.org/abs/2304.11277).
"""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.utils import gather_object, parse_flag_from_env
from peft import PeftModel
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from rlpf_pipeline.models.adapters import layers_of
from rlpf_pipeline.training.rollout import Sampler
from rlpf_pipeline.training.sampling import Sampling


def shards_base(accelerate: Accelerator) -> bool:
    """Whether this run's launcher asks for it: `distributed_type: FSDP`, on several ranks."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerate.num_processes > 1


def placed(model: PeftModel, accelerate: Accelerator) -> PeftModel:
    """The model on the rank's device, where the launcher asks for it with its layers' frozen weights divided."""
    if shards_base(accelerate):
        mesh = init_device_mesh(accelerate.device.type, (accelerate.num_processes,))
        for layer in layers_of(model):
            trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    return model.to(accelerate.device)


def is_sharded(model: PeftModel) -> bool:
    return isinstance(layers_of(model)[0], FSDPModule)


def idle_passes(passes: int) -> int:
    """How many passes more the busiest rank makes than this one's `passes`; every rank must ask."""
    return max(gather_object([passes])) - passes  # type: ignore[no-any-return]


class ShardedSampler(Sampler):
    """Draws from the sharded model itself, on all ranks at once; each needs a prompt.

    The model must have been passed through before: weights that are gathered for the first time in inference mode, in
    which texts are drawn, could not be trained through. `ActorCritic` does so when it is made.
    """

    def __init__(self, policy: PeftModel, sampling: Sampling) -> None:
        super().__init__(policy.get_base_model(), sampling)
        self.records = False

    def sample(self, prompts: Sequence[Sequence[int]], samples: int, uniform: Tensor) -> list[list[list[int]]]:
        packed = self.model.config._attn_implementation
        self.model.set_attn_implementation("sdpa")
        try:
            return super().sample(prompts, samples, uniform)
        finally:
            self.model.set_attn_implementation(packed)

    def goes_on(self, going: Tensor) -> bool:
        return any(gather_object([bool(going.any())]))
