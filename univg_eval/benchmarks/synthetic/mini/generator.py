"""From (task, seed, index, subset) to a question: the same everywhere and always."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Literal, TypeVar

from univg_eval.benchmarks.synthetic.mini import tasks_multi, tasks_single, tasks_tools, tasks_video
from univg_eval.benchmarks.synthetic.mini.item import Draft, MiniItem
from univg_eval.benchmarks.synthetic.mini.layout import Maker, RetryScene
from univg_eval.errors import UserError

__all__ = [
    "DEFAULT_N",
    "DEFAULT_SEED",
    "GENERATOR_VERSION",
    "TASKS",
    "Subset",
    "first_scene",
    "generate",
    "random_stream",
]

GENERATOR_VERSION = "1"
"""Part of every seed: a change that alters any question must change it."""
DEFAULT_SEED = 20250
DEFAULT_N = 40

Subset = Literal["eval", "train"]
_Made = TypeVar("_Made")

_BUILDERS: dict[str, Callable[[Maker], Draft]] = {
    "common_object": tasks_multi.common_object,
    "diff": tasks_multi.diff,
    "view_diff": tasks_multi.view_diff,
    "object_tracking": tasks_multi.object_tracking,
    "multi_view": tasks_multi.multi_view,
    "region": tasks_multi.region,
    "refer_grounding": tasks_multi.refer_grounding,
    "group_grounding": tasks_multi.group_grounding,
    "reasoning": tasks_multi.reasoning,
    "correspondence": tasks_tools.correspondence,
    "lisa_val": tasks_single.lisa_val,
    "lisa_test": tasks_single.lisa_test,
    "llmseg": tasks_single.llmseg,
    "reasonvos": tasks_video.reasonvos,
    "revos": tasks_video.revos,
}

TASKS: tuple[str, ...] = tuple(_BUILDERS)

_QUESTIONS_PER_GROUP = {"common_object": 2, "object_tracking": 2}
"""Tasks in which several questions share their images (and so a cluster)."""
_HELD_OUT_EVERY = 4
"""Every fourth image group of the evaluation asks for a held-out combination."""
_MAX_ATTEMPTS = 500


def random_stream(*key: object) -> random.Random:
    """A generator of random numbers that depends on the key alone, in every process."""
    digest = hashlib.sha256("/".join(map(str, ("univg_mini", *key))).encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))


def generate(task: str, *, seed: int, index: int, subset: Subset = "eval") -> MiniItem:
    """One question, a pure function of the arguments and `GENERATOR_VERSION`.

    Args:
        task: one of `TASKS`.
        seed: any whole number; `DEFAULT_SEED` is the public one.
        index: 0-based number of the question within its task.
        subset: "eval", or "train": endless scenes from other random streams, which never show
            a held-out combination.

    Raises:
        UserError: an unknown task or subset, or a negative index.
    """
    if task not in _BUILDERS:
        raise UserError(f"unknown task {task!r} of univg_mini; known: {', '.join(TASKS)}")
    if subset not in ("eval", "train"):
        raise UserError(f"unknown subset {subset!r} of univg_mini; known: eval, train")
    if index < 0:
        raise UserError(f"index is {index}; questions are numbered from 0")
    group, member = divmod(index, _QUESTIONS_PER_GROUP.get(task, 1))
    stream = (GENERATOR_VERSION, subset, seed, task)
    held_out = subset == "eval" and group % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    maker = Maker(
        rng=random_stream(*stream, group),
        held_out=held_out,
        words=random_stream(*stream, group, "words", member),
        fate=random_stream(*stream, group, "kind").random(),
        member=member,
    )
    draft = first_scene(
        lambda: _BUILDERS[task](maker), f"{task} seed={seed} index={index} subset={subset}"
    )
    return _finish(task, group, held_out, draft)


def first_scene(build: Callable[[], _Made], name: str) -> _Made:
    """What `build` makes in its first attempt that does not end in `RetryScene`.

    AssertionError, with the `name` of the question, if there is none in 500.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            return build()
        except RetryScene:
            continue
    raise AssertionError(
        f"no scene for {name} in {_MAX_ATTEMPTS} attempts: the task's constraints contradict "
        "each other"
    )


def _finish(task: str, group: int, held_out: bool, draft: Draft) -> MiniItem:
    box = draft.target.box if draft.box is None else draft.box
    return MiniItem(
        task=task,
        scenes=tuple(draft.scenes),
        instruction=draft.instruction,
        box=box,
        target_image=draft.image,
        image_is_given=draft.image_is_given,
        label=draft.target.label,
        knobs={
            "kind": draft.kind,
            "depth": draft.depth,
            "distractors": len(draft.scenes[draft.image].objects) - 1,
            "target_share": round((box[2] - box[0]) * (box[3] - box[1]), 4),
            "held_out": held_out,
            "images": len(draft.scenes),
            **draft.knobs,
        },
        group=f"{group:05d}",
        frames=draft.frames,
        clip=draft.clip,
    )
