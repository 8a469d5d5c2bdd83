"""The table of docs/backends.md: model families through backends, each run on a small checkpoint.

``python tests/backend_table.py`` prints it without the lines of vLLM; ``python
tests/backend_table.py FAMILY vllm_generate`` prints one, in the environment of ``make test-vllm``.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

from small_checkpoints import FAMILIES, make_checkpoint

__all__ = ["BACKENDS", "HEAD", "VLLM", "VLLM_ARGS", "VLLM_FAMILIES", "row"]

BACKENDS: Mapping[str, tuple[str, ...]] = {
    "qwen2_vl": ("univg", "qwen2_vl", "huggingface"),
    "qwen2_5_vl": ("univg", "qwen2_5_vl"),
    "qwen3_vl": ("univg", "qwen3_vl"),
    "qwen3_5": ("univg", "qwen3_5"),
    "internvl": ("univg", "internvl_hf"),
    "glm4v": ("univg", "glm4v"),
    "llava_onevision": ("univg", "llava_onevision"),
    "llava": ("univg", "llava_hf"),
    "gemma3": ("univg", "gemma3"),
    "paligemma": ("univg",),
    "florence2": ("univg",),
    "kosmos-2": ("univg",),
    "idefics3": ("univg", "idefics2"),
    "smolvlm": ("univg",),
    "mistral3": ("univg",),
    "kimi_k25": ("univg",),
    "minicpmv4_6": ("univg",),
    "molmo2": ("univg",),
    "lfm2_vl": ("univg", "lfm2_5_vl"),
}
"""Family → this project's backend, and the one of lmms-eval that is for it."""
VLLM_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "glm4v", "idefics3")
"""Those whose small checkpoints vLLM 0.32 loads; tests/test_vllm.py runs them."""
HEAD = """\
| `model_type` | backend | runs | weights | dialect | input size in the record |
|---|---|---|---|---|---|"""
VLLM = "vllm_generate"
VLLM_ARGS = (
    "dtype=float32,max_model_len=4096,gpu_memory_utilization=0.1,enforce_eager=True,"
    "max_new_tokens=1,trust_remote_code=False"
)
"""For a small checkpoint on CPUs."""
_NO_DIALECT = {"gemma3", "idefics3", "smolvlm", "mistral3", "kimi_k25", "minicpmv4_6"}


def row(family: str, backend: str, data: Path, folder: Path) -> str:
    """Evaluate two samples; one line of the table.

    Args:
        data: data root with univg_mini.
        folder: for checkpoints.
    """
    from univg_eval.errors import UserError
    from univg_eval.lmms.run import LoadedModel, evaluate

    assert set(BACKENDS) == set(FAMILIES)
    engine = backend == VLLM
    if not (checkpoint := folder / f"{family}{'-vllm' * engine}").exists():
        make_checkpoint(family, checkpoint, for_vllm=engine)
    args = f"model={checkpoint},{VLLM_ARGS}" if engine else f"pretrained={checkpoint},device=cpu"
    if backend not in ("univg", "lfm2_5_vl", VLLM):
        args += ",device_map=cpu"
    weights, dialect, size = "whole", "", ""
    try:
        with _quiet(), _environment(data, family), LoadedModel(backend, args) as loaded:
            options = {"loaded": loaded, "gen_kwargs": "max_new_tokens=4"}
            results = evaluate(backend, args, ["univg_mini_lisa_val"], **options).results
    except UserError as error:
        assert "would be random" in str(error), error
        runs, weights = "refused", "random, were it not refused"
    except (NameError, ValueError, TypeError, AttributeError) as error:
        runs, weights = f"no: {type(error).__name__}", ""
    else:
        runs = "yes"
        logged = results["samples"]["univg_mini_lisa_val"][0]
        name, source = logged["univg_settings"]["dialect"]
        dialect = f"`{name}`" if "config.json" in source else f"`{name}`, given"
        sizes = logged["input_sizes"]
        size = "not needed" if sizes is None else " x ".join(map(str, sizes[0])) + ", the real one"
    return f"| `{family}` | `{backend}` | {runs} | {weights} | {dialect} | {size} |"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _environment(data: Path, family: str) -> Iterator[None]:
    changes = {"UNIVG_DATA": str(data), "UNIVG_MINI_N": "2"}
    if family in _NO_DIALECT:
        changes["UNIVG_DIALECT"] = "norm1000"
    with patch.dict(os.environ, changes):
        yield


def main(*pair: str) -> None:
    """Print the table, or the line of a family and a backend."""
    from univg_eval.benchmarks.synthetic.mini import ensure

    pairs = [pair] if pair else [(a, b) for a, backends in BACKENDS.items() for b in backends]
    with tempfile.TemporaryDirectory() as name:
        ensure(Path(name) / "data", n=2)
        lines = [row(*one, Path(name) / "data", Path(name)) for one in pairs]
    sys.stdout.write("\n".join([*([] if pair else [HEAD]), *lines, ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
