"""Whether a backend can have the device that it loads its model on."""

from __future__ import annotations

from univg_eval.errors import UserError
from univg_eval.lmms.settings import ModelUnderTest

__all__ = ["require_device"]

_ARGUMENTS = ("device", "device_map")


def require_device(model: ModelUnderTest, device: str | None = None) -> None:
    """Refuse a model that would be loaded on a GPU where there is none.

    A backend without an argument for the device sees to it itself.

    Args:
        model: the model under test.
        device: lmms-eval's ``--device``, which is handed to the backend.

    Raises:
        UserError: PyTorch finds no GPU; the message has the arguments for the CPU.
    """
    defaults = {name: model.backend_default(name) for name in _ARGUMENTS}
    given = {"device": device, **model.args}
    wanted = {
        name: given.get(name) or default
        for name, default in defaults.items()
        if default is not None
    }
    on_gpu = [f"{name}={value}" for name, value in wanted.items() if str(value)[:4] == "cuda"]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        return
    on_cpu = ",".join(f"{name}=cpu" for name in wanted)
    raise UserError(
        f"the backend {model.backend!r} loads its model on a GPU ({', '.join(on_gpu)}), and "
        f"PyTorch finds none here; add {on_cpu} to --model_args for the CPU, which is slow, or "
        "run where there is a GPU"
    )
