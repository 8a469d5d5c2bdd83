"""The course of training runs as a picture: reward, difficulty, loss and evaluations by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError, install_command
from univg_eval.files import read_json, whole_file
from univg_train.runs.folder import MODEL_FOLDER, STATE_FILE, find_checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "Course", "draw_curves", "read_course", "write_curves"]

FORMATS = ("png", "pdf", "svg")
_EVALUATION = "eval_"
_BINS = "difficulty/share_"
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "curves",
}
# Of Okabe and Ito (2008), for readers with the common forms of colour blindness.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True, slots=True)
class Course:
    """What a run logged.

    Attributes:
        name: of the run's folder.
        lines: the logged figures, each with its ``step``, in order.
    """

    name: str
    lines: tuple[Mapping[str, float], ...]

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of one figure, of the lines that have it."""
        found = [(line["step"], line[key]) for line in self.lines if key in line]
        return [step for step, _ in found], [value for _, value in found]

    def keys(self, wanted: Callable[[str], bool]) -> list[str]:
        """The figures whose name is wanted, in the order in which they came."""
        return [key for key in dict.fromkeys(k for line in self.lines for k in line) if wanted(key)]


def read_course(folder: Path) -> Course:
    """What a run of ``sft`` or ``grpo`` has logged, up to its end or its newest checkpoint.

    Raises:
        UserError: the folder holds no log.
    """
    places = [folder / MODEL_FOLDER, find_checkpoint(folder), folder]
    for place in places:
        path = None if place is None else place / STATE_FILE
        if path is None or not path.is_file():
            continue
        try:
            history = read_json(path)["log_history"]
            lines = tuple({k: v for k, v in line.items() if _is_number(v)} for line in history)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"cannot read {path}: {error}; give the folder of a run") from error
        if lines := tuple(line for line in lines if "step" in line):
            return Course(folder.resolve().name, lines)
    raise UserError(
        f"{folder} holds no log of a run: expected {MODEL_FOLDER}/{STATE_FILE}, or a checkpoint "
        "with one; give the output_dir of a run that has written a checkpoint"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_Panel = tuple[str, list[str]]


def _panels(courses: Sequence[Course]) -> list[_Panel]:
    """Title and figures of each panel that some run has something for."""

    def found(wanted: Callable[[str], bool]) -> list[str]:
        return list(dict.fromkeys(key for course in courses for key in course.keys(wanted)))

    evaluations = found(lambda key: key.startswith(_EVALUATION) and "/acc" in key)
    panels = [
        ("reward", found(lambda key: key == "reward")),
        ("mean IoU of the rollouts", found(lambda key: key == "difficulty/miou")),
        ("weight of the prompts", found(lambda key: key == "difficulty/weight")),
        ("prompts without spread", found(lambda key: key == "difficulty/no_spread")),
        ("readable boxes", found(lambda key: key == "difficulty/answered")),
        ("loss", found(lambda key: key == "loss")),
        *((key.removeprefix(_EVALUATION).replace("/", ": "), [key]) for key in evaluations),
    ]
    return [(title, keys) for title, keys in panels if keys]


def draw_curves(courses: Sequence[Course]) -> Figure:
    """A panel for each figure, with a line for each run; of one run also its bins of difficulty.

    The y axis of a panel begins where its values do: the panels show courses, not sizes.

    Raises:
        UserError: matplotlib is not installed, or no run logged any of the figures.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            f"figures need the package matplotlib: {install_command('report')}"
        ) from error
    panels = _panels(courses)
    if not panels:
        raise UserError(
            "no run has logged a reward, a loss or an evaluation; expected trainer.logging_steps "
            "of at most the number of steps"
        )
    bins = courses[0].keys(lambda key: key.startswith(_BINS)) if len(courses) == 1 else []
    count = len(panels) + bool(bins)
    columns = min(3, count)
    rows = -(-count // columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis, (title, keys) in zip(axes, panels, strict=False):
            for number, course in enumerate(courses):
                _draw_line(axis, course, keys[0], number)
            axis.set(title=title, xlabel="step")
        if bins:
            _draw_bins(axes[len(panels)], courses[0], bins)
        for axis in axes[count:]:
            axis.set_axis_off()
        if len(courses) > 1:
            handles, names = axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=columns)
    return figure


def _draw_line(axis: Any, course: Course, key: str, number: int) -> None:
    steps, values = course.series(key)
    colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    # A single value is a point, which a line alone would not show.
    marker = "o" if len(steps) < 30 else ""
    axis.plot(
        *(steps, values), color=colour, linestyle=dashes, marker=marker, markersize=3,
        linewidth=1.2, label=course.name,
    )  # fmt: skip


def _draw_bins(axis: Any, course: Course, bins: Sequence[str]) -> None:
    steps = course.series(bins[0])[0]
    shares = [course.series(key)[1] for key in bins]
    names = [key.removeprefix(_BINS).replace("_", " to ") for key in bins]
    colours = [str(0.15 + 0.17 * number) for number in range(len(bins))]
    axis.stackplot(steps, shares, labels=names, colors=colours)
    axis.set(title="prompts by mean IoU", xlabel="step", ylim=(0, 1))
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(
        *(handles[::-1], labels[::-1]), loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3,
        columnspacing=1.0, handlelength=1.0,
    )  # fmt: skip


def write_curves(folders: Sequence[Path], out: Path) -> Path:
    """Draw the courses of runs into a file, whose ending says its format.

    Raises:
        UserError: see `read_course` and `draw_curves`; another ending; the file cannot be written.
    """
    form = out.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        expected = ", ".join(f".{name}" for name in FORMATS)
        raise UserError(f"--out is {out}; expected a name that ends in one of {expected}")
    figure = draw_curves([read_course(folder) for folder in folders])
    from matplotlib import rc_context

    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    try:
        with whole_file(out, "wb") as file, rc_context(_STYLE):
            figure.savefig(file, format=form, dpi=200, metadata=dates[form])
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror or error}; choose another file"
        ) from error
    return out
