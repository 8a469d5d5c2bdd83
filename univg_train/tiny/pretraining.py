"""Train the tiny Qwen2-VL on generated scenes, on a few CPU cores.

    univg-train tiny --out runs/tiny --minutes 90

A run folder holds ``settings.json`` and ``tokenizer/``, ``state.pt`` (weights, optimisers, step:
a run goes on from it), ``log.jsonl`` and, at the end, ``checkpoint/``: a model folder that
transformers and lmms-eval load.

Weights are a function of the settings and the step alone if a run ends by steps; one that ends
by minutes follows the clock with its learning rate.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from univg_eval.benchmarks.synthetic.mini import TASKS, MiniItem
from univg_eval.boxes import box_iou
from univg_eval.errors import UserError
from univg_eval.prompts import THINK_SUFFIX
from univg_eval.protocols import parse_answer
from univg_train.tiny.answers import DIALECT
from univg_train.tiny.auxiliary import Trainee
from univg_train.tiny.checkpoint import CardFacts, export_checkpoint
from univg_train.tiny.data import (
    PROMPT_SUFFIX,
    REASONING_TOKENS,
    RowPlan,
    draw_images,
    prefix_text,
    tokenizer_texts,
    training_item,
)
from univg_train.tiny.model import FRAMES, IMAGE_SIDE, TinyShape, build_model, image_patches
from univg_train.tiny.muon import Muon
from univg_train.tiny.tokenizer import END_OF_TURN, build_tokenizer
from univg_train.tiny.workers import GradientWorkers, WorkerSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

__all__ = [
    "VALIDATION_SEED",
    "TinyResult",
    "TinySettings",
    "task_accuracy",
    "train_tiny",
    "validation_items",
]

logger = logging.getLogger(__name__)

# Apart from every training seed a user is likely to give, and from the benchmark's public seed.
VALIDATION_SEED = 900_000_001
_LOG_EVERY = 20


@dataclass(frozen=True, slots=True)
class TinySettings:
    """What a run's weights depend on.

    Attributes:
        seed: of weights, vocabulary and scenes.
        steps: the run ends after so many optimiser steps; None: no limit.
        minutes: it ends after so much wall time, over all resumptions; None: no limit.
        shape: sizes of the model.
        plan: the rows of each step.
        learning_rate: peak of AdamW's rate; matrix_rate: of Muon's. Both rise over `warmup`
            steps and then fall along a cosine to zero at the end of the run.
        weight_decay: of all parameters.

    Raises:
        UserError: neither steps nor minutes, or the validation's seed.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    shape: TinyShape = field(default_factory=TinyShape)
    plan: RowPlan = field(default_factory=RowPlan)
    learning_rate: float = 1.5e-3
    matrix_rate: float = 4e-3
    warmup: int = 100
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise UserError("a run needs an end: give steps, minutes, or both")
        if VALIDATION_SEED in self.plan.seeds(self.seed):
            raise UserError(
                f"seed {self.seed} would train on the validation scenes; give another one"
            )


@dataclass(frozen=True, slots=True)
class TinyResult:
    """What a finished run reached."""

    steps: int
    minutes: float
    macro: float
    checkpoint: Path


def train_tiny(
    out: Path,
    settings: TinySettings,
    *,
    threads: int = 2,
    resume: bool = True,
    compile_layers: bool = False,
    save_minutes: float = 3.0,
    validate_minutes: float = 10.0,
    validation_per_task: int = 40,
) -> TinyResult:
    """Train, or go on with a run that was stopped, and write its checkpoint.

    Args:
        out: folder of the run; made if absent.
        settings: what the weights depend on.
        threads: processes that compute gradients.
        resume: go on with the state in `out`, if there is one; else begin anew.
        compile_layers: let torch compile the layers (needs a C++ compiler).
        save_minutes: minutes between saved states.
        validate_minutes: minutes between validations.
        validation_per_task: questions a task of the last validation; the others have a quarter.

    Raises:
        UserError: `out` holds a run of other settings.
    """
    # The processes have the cores: a second thread here would only wait, and slow them down.
    torch.set_num_threads(1)
    run = _Run(out, settings, resume=resume)
    before, started = run.seconds, time.monotonic()
    saved = validated = started
    recent: list[dict[str, float]] = []
    if run.progress() < 1.0:
        workers = GradientWorkers(
            run.trainee,
            run.tokenizer,
            WorkerSettings(settings.shape, settings.seed, settings.plan, compile_layers),
            processes=threads,
        )
        try:
            while run.progress() < 1.0:
                recent.append(run.train_step(workers))
                now = time.monotonic()
                run.seconds = before + now - started
                if run.step % _LOG_EVERY == 0:
                    run.log(**_means(recent), rate=round(run.rate(), 5))
                    recent.clear()
                if now - validated > 60 * validate_minutes:
                    run.validate(max(1, validation_per_task // 4))
                    validated = time.monotonic()
                if now - saved > 60 * save_minutes:
                    run.save()
                    saved = time.monotonic()
        finally:
            workers.close()
        run.save()
    found = run.validate(validation_per_task)
    style = max(STYLES, key=lambda name: _macro(found[name]))
    accuracy = found[style]
    minutes, checkpoint = run.seconds / 60, out / "checkpoint"
    run.model.config.univg["prompt"] = style
    (other,) = set(STYLES) - {style}
    facts = CardFacts(
        *(run.step, minutes, settings.seed, threads, accuracy, validation_per_task),
        other_style=(other, _macro(found[other])),
    )
    export_checkpoint(run.model, run.tokenizer, settings.shape, facts, checkpoint)
    return TinyResult(run.step, minutes, _macro(accuracy), checkpoint)


def _means(recent: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found = {key: [one[key] for one in recent if key in one] for key in recent[-1]}
    return {key: round(sum(values) / len(values), 4) for key, values in found.items()}


def _optimizers(trainee: Trainee, settings: TinySettings) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for all else; in each two groups: what
    learns from images alone, and the rest."""
    vision = {id(parameter) for parameter in trainee.vision_parameters()}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trainee.named_parameters():
        inner = ".layers." in name or ".blocks." in name or ".merger." in name
        key = (inner and parameter.ndim == 2, id(parameter) in vision)
        groups.setdefault(key, []).append(parameter)

    def parts(matrices: bool, peak: float) -> list[dict[str, Any]]:
        return [
            {"params": groups[matrices, first], "peak": peak, "vision": first}
            for first in (True, False)
        ]

    decay = settings.weight_decay
    return [
        Muon(parts(True, settings.matrix_rate), lr=settings.matrix_rate, weight_decay=decay),
        torch.optim.AdamW(
            parts(False, settings.learning_rate),
            lr=settings.learning_rate,
            weight_decay=decay,
            betas=(0.9, 0.98),
            fused=True,
        ),
    ]


class _Run:
    """A run's folder, model and optimisers."""

    def __init__(self, out: Path, settings: TinySettings, *, resume: bool) -> None:
        self.out = out
        self.state_path = out / "state.pt"
        self._settings_path = out / "settings.json"
        self._tokenizer_path = out / "tokenizer"
        self.settings = settings
        self.step = 0
        self.seconds = 0.0
        if not resume and out.is_dir():
            self._clear()
        found = self.state_path.is_file()
        if found:
            self._check_settings()
        out.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._load_tokenizer() if found else self._make_tokenizer()
        self.model = build_model(settings.shape, self.tokenizer, seed=settings.seed)
        self.trainee = Trainee(self.model, seed=settings.seed)
        self.optimizers = _optimizers(self.trainee, settings)
        if found:
            self._load()
            logger.info("going on at step %d", self.step)
        else:
            self._settings_path.write_text(self._settings_text(), encoding="utf-8")

    def _settings_text(self) -> str:
        # Where a run ends may change when it goes on; what it learns from may not.
        fixed = {k: v for k, v in asdict(self.settings).items() if k not in ("steps", "minutes")}
        return json.dumps(fixed, indent=2, sort_keys=True) + "\n"

    def _check_settings(self) -> None:
        path = self._settings_path
        if not path.is_file() or path.read_text(encoding="utf-8") != self._settings_text():
            raise UserError(
                f"{self.out} holds a run of other settings (settings.json: seed, model or rows "
                "differ); give another folder, or --no-resume to begin anew in this one"
            )

    def _clear(self) -> None:
        for path in (self.state_path, self._settings_path, self.out / "log.jsonl"):
            path.unlink(missing_ok=True)
        for folder in (self._tokenizer_path, self.out / "checkpoint"):
            if folder.is_dir():
                shutil.rmtree(folder)

    def _make_tokenizer(self) -> PreTrainedTokenizerFast:
        texts = tokenizer_texts(self.settings.seed)
        tokenizer = build_tokenizer(texts, phrases=[PROMPT_SUFFIX, *REASONING_TOKENS])
        tokenizer.save_pretrained(self._tokenizer_path)
        return tokenizer

    def _load_tokenizer(self) -> PreTrainedTokenizerFast:
        """The run's own vocabulary: a state is worth nothing with another one."""
        from transformers import PreTrainedTokenizerFast

        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
            self._tokenizer_path
        )
        return tokenizer

    def _load(self) -> None:
        state = torch.load(self.state_path, weights_only=True)
        self.trainee.load_state_dict(state["model"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the state; a run that is killed meanwhile keeps the one before."""
        state = {
            "model": self.trainee.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.state_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state_path)

    def progress(self) -> float:
        """Share of the run that is done, 0 to 1; the schedule follows it."""
        s = self.settings
        by_steps = self.step / s.steps if s.steps is not None else 0.0
        by_time = self.seconds / (60 * s.minutes) if s.minutes is not None else 0.0
        return min(1.0, max(by_steps, by_time))

    def rate(self) -> float:
        """Factor of the learning rates; it also rises when the text begins to be learnt."""
        step, first = self.step, self.settings.plan.image_steps
        since = step if step < first else step - first
        warm = min(1.0, (since + 1) / self.settings.warmup)
        return warm * 0.5 * (1 + math.cos(math.pi * self.progress()))

    def train_step(self, workers: GradientWorkers) -> dict[str, float]:
        """One optimiser step; returns the figures of its rows."""
        figures = workers.gradients(self.step)
        images_alone = self.step < self.settings.plan.image_steps
        norm = torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(
                f"the gradient's norm is {float(norm)} at step {self.step}: the run diverged; "
                "begin anew with smaller learning rates"
            )
        factor = self.rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
                if images_alone and not group["vision"]:
                    for parameter in group["params"]:
                        parameter.grad = None
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return figures

    def validate(self, per_task: int) -> dict[str, dict[str, float]]:
        """Acc@0.5 of each task, in each style, on samples of the training kind that training never
        draws."""
        self.model.eval()
        items = validation_items(VALIDATION_SEED, per_task)
        parts = (self.model, self.tokenizer, self.settings.shape, items)
        accuracy = {style: task_accuracy(*parts, style=style) for style in STYLES}
        self.model.train()
        macros = {f"macro_{style}": round(_macro(values), 4) for style, values in accuracy.items()}
        self.log(**macros, accuracy=accuracy)
        return accuracy

    def log(self, **values: Any) -> None:
        """Add a line to the run's log."""
        record = {"step": self.step, "minutes": round(self.seconds / 60, 2), **values}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        shown = [f"{key} {value:.3f}" for key, value in values.items() if isinstance(value, float)]
        logger.info("step %d, %.1f minutes: %s", self.step, self.seconds / 60, ", ".join(shown))


# --- validation ----------------------------------------------------------------------------------

MAX_NEW_TOKENS = {"direct": 32, "think": 128}
STYLES = tuple(MAX_NEW_TOKENS)


def _macro(accuracy: Mapping[str, float]) -> float:
    return sum(accuracy.values()) / len(accuracy)


def validation_items(seed: int, per_task: int) -> list[MiniItem]:
    """Samples of the training kind from a stream that no training step draws from."""
    return [training_item(task, seed, 2 * index) for task in TASKS for index in range(per_task)]


def task_accuracy(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    items: Sequence[MiniItem],
    *,
    style: str = "direct",
    batch_size: int = 40,
) -> dict[str, float]:
    """Acc@0.5 of each task: the share of its samples whose greedy response is right."""
    ordered = sorted(items, key=lambda item: item.image_count)
    hits: dict[str, list[bool]] = {}
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        responses = _generate(model, tokenizer, shape, batch, style)
        for item, response in zip(batch, responses, strict=True):
            target = item.target_image if item.image_is_given else None
            box = parse_answer(response, DIALECT, target_image=target).box
            hit = box is not None and bool(box_iou(box, item.box) >= 0.5)
            hits.setdefault(item.task, []).append(hit)
    return {task: float(np.mean(hits[task])) for task in TASKS if task in hits}


@torch.inference_mode()
def _generate(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    items: Sequence[MiniItem],
    style: str,
) -> list[str]:
    suffix = THINK_SUFFIX if style == "think" else PROMPT_SUFFIX
    texts = [
        prefix_text(item.image_count, shape.tokens_per_image)
        + f"{item.instruction}{suffix}{END_OF_TURN}\n<|im_start|>assistant\n"
        for item in items
    ]
    tokens = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    images = np.concatenate([draw_images(item.scenes, IMAGE_SIDE) for item in items])
    patches = image_patches(torch.from_numpy(images), shape, torch.float32, frames=FRAMES)
    grid = torch.tensor([[1, shape.grid, shape.grid]]).expand(len(images), 3)
    generator: Any = model
    output = generator.generate(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        pixel_values=patches.reshape(-1, patches.shape[-1]),
        image_grid_thw=grid,
        mm_token_type_ids=(tokens.input_ids == model.config.image_token_id).int(),
        max_new_tokens=MAX_NEW_TOKENS[style],
        do_sample=False,
    )
    return tokenizer.batch_decode(output[:, tokens.input_ids.shape[1] :], skip_special_tokens=True)
