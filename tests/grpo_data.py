"""GRPO on rollouts that are known beforehand, for one process or several.

The model is a random Qwen2 of a few thousand weights in float64. Its rollouts are not sampled:
each answers ``[0, 0, 1, H]`` to a prompt whose true box is the whole image, so its IoU is H.
Run as a script, ``python grpo_data.py MODEL OUT CASES``, it is one process of several, with RANK,
WORLD_SIZE and the like in the environment; CASES is {name: [form, settings of GRPOConfig]}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig

from univg_train.difficulty import DifficultyWeight
from univg_train.grpo.trainer import PAPER_SETTINGS, DifficultyGRPOTrainer
from univg_train.rewards import make_rewards

GROUP = 4
# The IoU of each prompt's rollouts; None is an answer without a box. The first prompt is hard, the
# second mixed, the third nearly solved (its mean is above 0.98), the last has no spread. TRL keeps
# rewards in float32: these are exact in it.
ROLLOUTS: tuple[tuple[float | None, ...], ...] = (
    (None, 0.0, 0.125, 0.25),
    (0.875, 0.25, 0.5, None),
    (1.0, 0.984375, 0.96875, 1.0),
    (0.4375, 0.4375, 0.4375, 0.4375),
)


def answer(height: float | None) -> str:
    return "no idea" if height is None else f"[0, 0, 1, {height}]"


def make_text_checkpoint(folder: Path) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).to(torch.float64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_rows(n: int = len(ROLLOUTS)) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": f"{i} where is it?",
                "solution": [0.0, 0.0, 1.0, 1.0],
                "dialect": "norm1",
                "single_image": True,
                "source": "odd" if i % 2 else "even",
            }
            for i in range(n)
        ]
    )


class KnownRollouts(DifficultyGRPOTrainer):
    """Answers from the table instead of the model."""

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], None]:
        first = self.accelerator.process_index * len(prompt_ids)
        completions = []
        for i, ids in enumerate(prompt_ids):
            prompt = int(self.processing_class.decode(ids).split()[0])
            text = answer(ROLLOUTS[prompt][(first + i) % GROUP])
            completions.append([*self.processing_class(text)["input_ids"], self.eos_token_ids[0]])
        return completions, None


def load(folder: Path) -> Any:
    from transformers import Qwen2ForCausalLM

    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float64)


def make_trainer(folder: Path, out: Path, difficulty: DifficultyWeight, **changes: Any):
    rewards = changes.pop("rewards", make_rewards())
    settings = {
        **PAPER_SETTINGS,
        "num_generations": GROUP,
        "max_completion_length": 32,
        "learning_rate": 1e-3,
        "output_dir": str(out),
        "shuffle_dataset": False,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        **changes,
    }
    trainer = KnownRollouts(
        load(folder),
        rewards,
        GRPOConfig(**settings),
        make_rows(),
        difficulty=difficulty,
    )
    shake(trainer.model, seed=1)  # away from the reference model, so that there is a KL term
    return trainer


def shake(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def first_batch(trainer: Any) -> dict[str, Any]:
    """This process's part of the first batch, with rollouts, advantages and weights."""
    trainer.model.train()
    return trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))


def loss_and_gradients(trainer: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    """Means over the processes."""
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1  # which `train` would set
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])
    reduce = trainer.accelerator.reduce
    return reduce(loss.detach(), "mean").item(), reduce(gradients, "mean")


def report(trainer: Any) -> dict[str, Any]:
    """One batch's loss and gradients, then two steps of training: what every layout must share."""
    batch = first_batch(trainer)
    loss, gradients = loss_and_gradients(trainer, batch)
    trainer._metrics["train"].clear()
    trainer.train()
    logs = [
        {
            name: value
            for name, value in line.items()
            if name == "loss" or name.startswith(("difficulty/", "source/"))
        }
        for line in trainer.state.log_history[:-1]
    ]
    weights = torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])
    return {
        "advantages": trainer.accelerator.gather(batch["advantages"]).tolist(),
        "loss": loss,
        "gradients": gradients.tolist(),
        "logs": logs,
        "weights": weights.tolist(),
    }


def main() -> None:
    folder, out, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    reports = {}
    for name, (form, settings) in cases.items():
        trainer = make_trainer(folder, out.parent / "run", DifficultyWeight(form), **settings)
        reports[name] = report(trainer)
    if trainer.accelerator.is_main_process:
        out.write_text(json.dumps(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
