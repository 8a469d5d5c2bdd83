"""Mend an environment with vLLM's CPU build whose index has no other CPU wheel than torch's own.

``make test-vllm`` runs it there. Wheels of torchvision, torchaudio and torchcodec for CUDA do not
load beside torch for CPUs. Images need torchvision's transforms and none of its operators, so those
that it registers at import are declared; the other two are for sound and videos, and are removed.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_OPERATORS = """\
import torch

for _name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )
"""


def loads(package: str) -> bool:
    """Whether a new process can import it."""
    command = [sys.executable, "-c", f"import {package}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Mend; the exit status is 1 where that was not enough."""
    for package in ("torchaudio", "torchcodec"):
        if find_spec(package) is not None and not loads(package):
            subprocess.run([sys.executable, "-m", "pip", "uninstall", "-qy", package], check=True)
    if not loads("torchvision"):
        spec = find_spec("torchvision")
        assert spec is not None and spec.origin is not None
        file = Path(spec.origin).with_name("extension.py")
        file.write_text(_OPERATORS + file.read_text(encoding="utf-8"), encoding="utf-8")
    if loads("torchvision") and loads("vllm"):
        return 0
    sys.stderr.write("vLLM cannot be imported; see: python -c 'import vllm'\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
