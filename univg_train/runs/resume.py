"""What transformers' Trainer does not restore by itself when a run goes on.

transformers writes a checkpoint under the names that the model's release has, and its Trainer
(5.23) reads one by the names that the loaded model has. Where the two differ, as for Qwen2-VL
(``visual.…`` against ``model.visual.…``), nothing is read, with a warning alone: the run would go
on from its first weights. `RestoreWeights` reads them as a model folder is read, and keeps that
warning back.

And it checks only after a step whether all are done. A run that died between its last
checkpoint and its model folder would train one step too many, where ``max_steps`` ends within an
epoch. `StopWhenDone` raises `Done` before that step.

TRL's GRPO draws the order of its prompts with a generator of its own, anew at the begin of every
epoch; neither its state nor the number of draws is kept, so that a run that goes on in its second
epoch would take the order of the first. `DrawPastOrders` draws those of the epochs that are over.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from univg_eval.files import verify_sums, write_sums
from univg_eval.models.pretrained import whole_weights

__all__ = ["Done", "SumCheckpoints", "go_on_from"]

_TRAINER_LOGGER = logging.getLogger("transformers.trainer")


def go_on_from(trainer: Any, checkpoint: Path) -> None:
    """Prepare a trainer that will resume from `checkpoint`; `train` raises `Done` after all steps.

    DeepSpeed, FSDP and adapters have files of their own, under the names of the loaded model.

    Raises:
        UserError: a file of the checkpoint was changed, see `univg_eval.files.verify_sums`.
    """
    verify_sums(checkpoint)
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if not sharded and not hasattr(trainer.model, "peft_config"):
        trainer.add_callback(RestoreWeights(checkpoint))
    trainer.add_callback(DrawPastOrders())
    trainer.add_callback(StopWhenDone())


class Done(Exception):  # noqa: N818 - not an error
    """All steps were taken before."""


class StopWhenDone(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends a run whose checkpoint is that of its last step, with everything restored."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise `Done` if there is nothing left to train."""
        if state.global_step >= state.max_steps:
            raise Done


class SumCheckpoints(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Writes the checksums of each checkpoint, when all processes have written their parts."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sum up the checkpoint of this step."""
        args.distributed_state.wait_for_everyone()
        if args.process_index == 0:
            write_sums(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class DrawPastOrders(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Brings TRL's `RepeatSampler` to the epoch of the run; of others the trainer sets it."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Draw, and throw away, one order for each epoch that is over."""
        from accelerate.data_loader import get_sampler
        from trl.trainer.utils import RepeatSampler

        sampler = get_sampler(train_dataloader)
        if sampler is None:  # of several processes, each wraps its share once more
            inner = getattr(train_dataloader.batch_sampler, "batch_sampler", None)
            sampler = getattr(inner, "sampler", None)
        if not (isinstance(sampler, RepeatSampler) and sampler.shuffle):
            return
        passes, accumulation = len(train_dataloader), args.gradient_accumulation_steps
        steps_in_epoch = max(-(-passes // accumulation), 1)  # as the trainer counts
        for _ in range(state.global_step // steps_in_epoch):
            next(iter(sampler), None)


class RestoreWeights(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Loads a checkpoint's weights after the trainer has restored all else."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        _TRAINER_LOGGER.addFilter(_is_not_of_keys)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Copy the weights into the model's parameters, which the optimiser holds."""
        _TRAINER_LOGGER.removeFilter(_is_not_of_keys)
        with whole_weights():
            saved = type(model).from_pretrained(self._checkpoint, dtype=model.dtype)
        model.load_state_dict(saved.state_dict(), strict=True)


def _is_not_of_keys(record: logging.LogRecord) -> bool:
    """Whether a warning is another one than that names differ, which `RestoreWeights` settles."""
    words = ("There were missing keys in the ch", "There were unexpected keys in the ch")
    return not record.getMessage().startswith(words)
