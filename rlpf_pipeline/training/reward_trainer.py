"""Training the reward model: each variant is encoded once, and all pairs of its ad come from that forward pass.

With K variants, trl's RewardTrainer encodes each of them K - 1 times; here each counts once, the ad's context is a
shared prefix, several ads share a row, and what the frozen layers give is computed in the first epoch only.
Heads may start at their optimum on the base's own states (`solved_heads.py`), which counts as epoch 0. Training stops
when the validation loss has not improved for some epochs; the best epoch's weights are kept. A run that was killed goes
on from its last checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import layers_of, trained_parameters
from rlpf_pipeline.models.frozen_layers import StateFile, cut_trunk
from rlpf_pipeline.models.packing import Packed, encode
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.checkpoints import Checkpoint, Checkpoints
from rlpf_pipeline.training.job import accelerator
from rlpf_pipeline.training.master_weights import MasterWeights
from rlpf_pipeline.training.reporter import WORTH_SAYING, Reporter
from rlpf_pipeline.training.reward_batches import Part, RewardBatches
from rlpf_pipeline.training.reward_loss import length_pull, part_loss
from rlpf_pipeline.training.snapshot import Ad
from rlpf_pipeline.training.solved_heads import MOST_TEXTS, Pooled, prior_draws, solved_heads

MAX_NORM = 1.0
CENTRE_ON = 64
LEAST_RANGE = 1e-6
"""Of scores, log odds; below it they are equal but for rounding."""
REFIT_GAIN = 0.001
"""Nats by which heads gain from learning from the validation ads too, by cross-validation (docs/reward-model.md)."""


def train_reward_model(
    model: RewardModel,
    ads: Sequence[Ad],
    settings: RewardSettings,
    seed: int,
    reporter: Reporter,
    states: StateFile,
    validation: Sequence[Ad] = (),
    checkpoints: Checkpoints | None = None,
) -> dict[str, float]:
    """Train `model` in place on the ads' pairs and centre its scores.

    validation: ads whose loss picks the epoch; without any, the last one counts. states: where the frozen layers'
    states are kept. Returns train_loss, train_accuracy, padding_share, epochs, cut_share (of the distinct texts, those
    cut at reward.max_text_tokens), and with validation ads validation_loss, validation_accuracy. Of an accuracy a tie,
    of scores or of a label, is a half. Raises UserError for labels that are no numbers, for a split of which no pair
    counts, and for a model that learned nothing.
    """
    trainer = RewardTrainer(model, ads, settings, seed, states, validation)
    cut_share = model.cut_share([text for ad in ads for text in ad.texts])
    if cut_share > WORTH_SAYING:
        reporter.say(
            f"{cut_share:.0%} of the texts are cut at {settings.max_text_tokens} tokens; those that differ only behind "
            "that get the same state of the base. Raise reward.max_text_tokens."
        )
    if not trainer.resume(checkpoints) and settings.solve_heads:
        trainer.solve_heads()
    reporter.phase(trainer.step)
    while not trainer.finished:
        trainer.train_step()
        if trainer.epoch_is_over:
            trainer.end_epoch()
        trainer.report(reporter)
        if checkpoints and trainer.step % settings.checkpoint_every == 0 and trainer.accelerate.is_main_process:
            checkpoints.save(trainer.checkpoint())
    trainer.take_best()
    centre(model, ads)
    return trainer.figures() | {"cut_share": cut_share}


class RewardTrainer:
    """One training run: model, data, optimiser, and how far it is. All that changes goes into `checkpoint()`."""

    def __init__(
        self,
        model: RewardModel,
        ads: Sequence[Ad],
        settings: RewardSettings,
        seed: int,
        states: StateFile,
        validation: Sequence[Ad] = (),
    ) -> None:
        self.model, self.settings, self.seed, self.states = model, settings, seed, states
        self.accelerate: Accelerator = accelerator()
        model.to(self.accelerate.device)
        if settings.compile:
            for layer in layers_of(model.trunk):
                layer.compile(dynamic=True)
        self.train = RewardBatches(model, ads, settings, seed)
        self.validation = RewardBatches(model, validation, settings, seed) if validation else None
        self.cut = cut_trunk(model.trunk, self.train.part(0).pieces[0])
        adapter = trained_parameters(model.trunk)
        self.masters = MasterWeights(
            [(adapter, settings.learning_rate), (list(model.head.parameters()), settings.head_learning_rate)],
            settings.weight_decay,
        )
        self.steps_of_epoch = len(self.train.batches)
        self.total = settings.epochs * self.steps_of_epoch
        self.step, self.stopped = 0, False
        self.running = dict.fromkeys(("loss", "mass", "correct", "pairs", "texts", "used", "places"), 0.0)
        self.best_epoch, self.best_loss, self.best_accuracy = 0, math.inf, 0.0
        self.best = [flat.detach().clone() for flat in self.masters.flat]

    @property
    def finished(self) -> bool:
        return self.stopped or self.step == self.total

    @property
    def epoch_is_over(self) -> bool:
        return self.step % self.steps_of_epoch == 0

    @property
    def to_beat(self) -> float:
        """Below this the validation loss of an epoch is better than the best: refitted heads are better than judged."""
        refitted = self.settings.solve_heads and self.settings.refit and self.best_epoch == 0
        return self.best_loss - REFIT_GAIN if refitted else self.best_loss

    def solve_heads(self) -> None:
        """Put the heads at their optimum on the states as they are, and judge that as epoch 0.

        Should no later epoch be better by more than the refit brings, the validation ads have done their work, and
        heads that learned from them too are the ones kept (`refit`).
        """
        solved = solved_heads(
            self.pooled("train", self.train),
            self.pooled("validation", self.validation) if self.validation else [],
            prior_draws(*self.model.head.weight.shape, self.seed).to(self.model.head.weight.device),
            self.model.head_prior(),
            self.settings,
            self.over_ranks,
            refit=self.settings.refit and self.validation is not None,
        )
        self.masters.flat[1].data.copy_(solved.judged.flatten())
        self.masters.write_back()
        self.end_epoch()
        if solved.refitted is not None:
            self.best[1].copy_(solved.refitted.flatten())

    @torch.no_grad()
    def pooled(self, split: str, batches: RewardBatches) -> list[Pooled]:
        """This rank's parts as the heads see them, with MOST_TEXTS texts on all ranks at most."""
        self.model.eval()
        rank, ranks = self.accelerate.process_index, self.accelerate.num_processes
        found, texts = [], 0
        for number in range(rank, len(batches.parts), ranks):
            part = batches.part(number)
            pieces = enumerate(part.pieces)
            states = torch.cat([self.model.pool(self.hidden((split, number, i), own), own) for i, own in pieces])
            contrasts = len(states) - len(batches.parts[number])
            found.append(Pooled(states * states.shape[1] ** -0.5, part, batches.part_mass[number], contrasts))
            texts += len(states)
            if texts * ranks >= MOST_TEXTS:
                break
        return found

    def train_step(self) -> None:
        """One optimiser step on one batch, its parts divided among the ranks."""
        epoch, place = divmod(self.step, self.steps_of_epoch)
        if place == 0:
            self.running = dict.fromkeys(self.running, 0.0)
        batch = int(np.random.default_rng([self.seed, epoch]).permutation(self.steps_of_epoch)[place])
        self.model.train()
        mine = self.train.batches[batch][self.accelerate.process_index :: self.accelerate.num_processes]
        pull = self.length_pull("train", self.train, mine)
        seen = torch.zeros(len(self.running), dtype=torch.float64)
        for number in mine:
            part = self.train.part(number)
            scores = self.scores("train", number, part)
            loss = part_loss(scores, part, self.settings, pull)
            (loss / self.train.mass[batch]).backward()
            seen += torch.tensor(_counted(scores.detach(), part, loss.item()), dtype=torch.float64)
        for gradient in self.masters.collect_gradients():
            gradient.copy_(self.over_ranks(gradient))
        seen = self.over_ranks(seen)
        self.masters.step(warmup_cosine(self.step, self.total, self.settings.warmup), MAX_NORM)
        for name, value in zip(self.running, seen.tolist(), strict=True):
            self.running[name] += self.train.mass[batch] if name == "mass" else value
        if not math.isfinite(self.running["loss"]):
            raise UserError(
                f"The loss of step {self.step + 1} is not finite. Lower reward.learning_rate or "
                "reward.head_learning_rate; in float16 or on damaged base weights nothing helps but another base."
            )
        self.step += 1

    def scores(self, split: str, number: int, part: Part) -> Tensor:
        """Scores (texts, heads) of a part. Of several pieces one at a time is in memory: the backward pass computes its
        activations again."""
        pieces = [((split, number, i), piece) for i, piece in enumerate(part.pieces)]
        if len(pieces) == 1:
            return self.piece_scores(*pieces[0])
        return torch.cat([checkpoint(self.piece_scores, *own, use_reentrant=False) for own in pieces])

    def piece_scores(self, name: Hashable, packed: Packed) -> Tensor:
        return self.model.read_out(self.hidden(name, packed), packed)

    def hidden(self, name: Hashable, packed: Packed) -> Tensor:
        """States at the top of the trunk, from the frozen layers' ones kept under `name` where there are any."""
        cut = self.cut
        if cut is None:
            return encode(self.model.trunk, packed)
        below = self.states.get(name, lambda: cut.below(packed), packed.input_ids.device)
        return cut.above(below, packed)

    def end_epoch(self) -> None:
        """Judge the epoch by the validation ads; stop when the last ones brought nothing."""
        epoch = self.step // self.steps_of_epoch
        if self.validation is None:
            self.best_epoch, self.best = epoch, [flat.detach().clone() for flat in self.masters.flat]
            return
        loss, accuracy = self.judge(self.validation)
        if loss < self.to_beat:
            self.best_epoch, self.best_loss, self.best_accuracy = epoch, loss, accuracy
            self.best = [flat.detach().clone() for flat in self.masters.flat]
        self.stopped = epoch - self.best_epoch >= self.settings.patience

    @torch.no_grad()
    def judge(self, validation: RewardBatches) -> tuple[float, float]:
        """Mean validation loss of the objective, of the mean over heads, and pairwise accuracy against the labels."""
        self.model.eval()
        rank, ranks = self.accelerate.process_index, self.accelerate.num_processes
        mine = range(rank, len(validation.parts), ranks)
        pull = self.length_pull("validation", validation, mine)
        seen = torch.zeros(3, dtype=torch.float64)
        for number in mine:
            part = validation.part(number).once()
            scores = self.scores("validation", number, part).mean(1, keepdim=True)
            correct = ordered(scores[:, 0], part)
            loss = part_loss(scores, part, self.settings, pull)
            seen += torch.tensor([loss, correct, len(part.p)], dtype=torch.float64)
        loss, right, pairs = self.over_ranks(seen).tolist()
        return loss / sum(validation.mass), right / pairs

    @torch.no_grad()
    def length_pull(self, split: str, batches: RewardBatches, numbers: Sequence[int]) -> Tensor | None:
        """`length_pull` of the parts with these numbers, at the cost of one more forward pass where there is any."""
        parts = ((number, batches.part(number)) for number in numbers)
        scored = ((self.scores(split, number, part), part) for number, part in parts)
        return length_pull(scored, self.settings, self.over_ranks)

    def over_ranks(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the ranks, where it was."""
        if self.accelerate.num_processes == 1:
            return values
        return self.accelerate.reduce(values.to(self.accelerate.device), "sum").to(values.device)

    def report(self, reporter: Reporter) -> None:
        seen = self.running
        figures = {"loss": seen["loss"] / seen["mass"], "accuracy": seen["correct"] / seen["pairs"]}
        if self.best_loss < math.inf:
            figures["validation_loss"] = self.best_loss
        reporter.progress(
            self.step, self.total, rate=(self.step / self.steps_of_epoch * len(self.train.log_ctr), "texts"), **figures
        )

    def figures(self) -> dict[str, float]:
        seen = self.running
        figures = {
            "train_loss": seen["loss"] / seen["mass"],
            "train_accuracy": seen["correct"] / seen["pairs"],
            "padding_share": 1 - seen["used"] / seen["places"],
            "epochs": self.best_epoch,
        }
        if self.validation:
            figures |= {"validation_loss": self.best_loss, "validation_accuracy": self.best_accuracy}
        return figures

    def take_best(self) -> None:
        for flat, best in zip(self.masters.flat, self.best, strict=True):
            flat.data.copy_(best)
        self.masters.write_back()

    def checkpoint(self) -> Checkpoint:
        tensors = self.masters.state() | {f"best.{i}": best for i, best in enumerate(self.best)}
        names = ("step", "stopped", "running", "best_epoch", "best_loss", "best_accuracy")
        return Checkpoint(tensors, {name: getattr(self, name) for name in names})

    def resume(self, checkpoints: Checkpoints | None) -> bool:
        """Take up the run's last checkpoint; whether there is one."""
        found = checkpoints.load() if checkpoints else None
        if found is None:
            return False
        self.masters.restore({n: t for n, t in found.tensors.items() if not n.startswith("best.")})
        self.best = [found.tensors[f"best.{i}"].to(best) for i, best in enumerate(self.best)]
        for name, value in found.state.items():
            setattr(self, name, value)
        return True


def ordered(scores: Tensor, part: Part) -> Tensor:
    """How many pairs the scores (texts,) order as their labels do; where either is even, a pair counts as a half."""
    agreement = (scores[part.left] - scores[part.right]).sign() * (part.p - 0.5).sign()
    return ((1 + agreement) / 2).sum()


def _counted(scores: Tensor, part: Part, loss: float) -> list[float]:
    """What a part adds to `RewardTrainer.running`, in its order (the mass is the batch's)."""
    mean = scores.mean(1)
    correct = ordered(mean, part).item()
    used, places = (sum(own) for own in zip(*((own.used, own.input_ids.numel()) for own in part.pieces), strict=True))
    return [loss, 0.0, correct, len(part.p), len(scores), used, places]


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at a step: linear up over the share `warmup`, then half a cosine down to 0."""
    start = max(1, round(warmup * total))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def centre(model: RewardModel, ads: Sequence[Ad]) -> None:
    """Shift each head's scores to mean 0 over the texts of the first CENTRE_ON ads: they are free up to a constant.

    Raises UserError where these texts all have one score.
    """
    scores = np.concatenate(model.score([(ad.context, ad.texts) for ad in ads[:CENTRE_ON]]))
    if np.ptp(scores, axis=0).max() < LEAST_RANGE:
        raise UserError(
            "The reward model gives every text the same score: it learned nothing. Raise reward.head_learning_rate or "
            "reward.epochs, lower reward.length_decorrelation, or give ads whose texts differ more in CTR."
        )
    model.center += torch.from_numpy(scores.mean(axis=0)).to(model.center)
