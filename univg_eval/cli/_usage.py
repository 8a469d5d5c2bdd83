"""What an evaluation took, in one line."""

from __future__ import annotations

from univg_eval.progress import duration
from univg_eval.runs.record import RunRecord

__all__ = ["usage_line"]

_MEMORY = {"cuda": "of GPU memory", "resident": "of memory"}


def usage_line(record: RunRecord) -> str:
    """Time, tokens, memory and cost as far as the record has them; "" if it has none."""
    usage = record.manifest.usage
    if usage is None or usage.generation_s is None:
        return ""
    parts = [f"Answered in {duration(usage.generation_s)}"]
    if usage.samples_per_s:
        speed = usage.samples_per_s
        parts[0] += f" ({speed:{',.0f' if speed >= 10 else '.2g'}} samples/s)"
    if usage.prompt_tokens is not None:
        of = "" if usage.counted == record.manifest.n else f" (of {usage.counted} samples)"
        parts.append(
            f"{usage.prompt_tokens:,} prompt and {usage.answer_tokens:,} answer tokens{of}"
        )
    if usage.peak_memory_bytes and usage.peak_memory:
        gigabytes = usage.peak_memory_bytes / 1e9
        parts.append(f"at most {gigabytes:.1f} GB {_MEMORY[usage.peak_memory]}")
    if usage.cost is not None:
        parts.append(f"cost {usage.cost:.4g}, says the service")
    return f"{'; '.join(parts)}."
