"""What this project uses of the inner workings of its libraries: which of it has moved?

One row for each name that those libraries do not promise to keep. The failure of a row names it
and the module that has to follow. Whether it still *works* is tested elsewhere.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
TRAINER = "univg_train/grpo/trainer.py"
RESUME = "univg_train/runs/resume.py"
SHARDING = "univg_train/runs/sharding.py"
TRAINING = "univg_train/runs/training.py"
EVALUATING = "univg_train/evaluation/generation.py"
PRETRAINED = "univg_eval/models/pretrained.py"
TASK = "univg_eval/lmms/task.py"
COMMAND = "univg_eval/lmms/command.py"
WATCH = "univg_eval/lmms/generation.py"
RUN = "univg_eval/lmms/run.py"
SETTINGS = "univg_eval/lmms/settings.py"


class Seam(NamedTuple):
    """A name of a library.

    Attributes:
        name: ``module:name``, with dots for what is inside a class.
        used: by which module of this project, and how.
        takes: parameters that are passed or overridden by name.
        says: pieces of its source, for what can be seen in no other way.
    """

    name: str
    used: str
    takes: str = ""
    says: tuple[str, ...] = ()


GRPO = "trl.trainer.grpo_trainer:GRPOTrainer"
HF_TRAINER = "transformers.trainer:Trainer"
LMMS_TASK = "lmms_eval.api.task:ConfigurableMessagesTask"
MANAGER = "lmms_eval.tasks:TaskManager"
REGISTRY = "lmms_eval.models:MODEL_REGISTRY_V2"

SEAMS = (
    # TRL
    Seam(
        f"{GRPO}._calculate_rewards",
        f"{TRAINER} overrides it",
        "self inputs prompts completions completion_ids_list",
    ),
    Seam(
        f"{GRPO}._generate_and_score_completions",
        f"{TRAINER} overrides it",
        "self inputs",
        ("self._calculate_rewards(", '"advantages": advantages'),
    ),
    Seam(
        f"{GRPO}._get_per_token_logps_and_entropies",
        f"{TRAINER} reads from it which inputs reach the model",
        "input_ids attention_mask pixel_values image_grid_thw",
    ),
    Seam(f"{GRPO}._log_metric", f"{TRAINER} calls it", "name value"),
    Seam(
        f"{GRPO}.__init__",
        f"{TRAINER} reads the attributes num_generations_eval and reward_weights",
        "model reward_funcs args train_dataset eval_dataset",
        ("self.num_generations = ", "self.num_generations_eval = ", "self.reward_weights = "),
    ),
    Seam(
        "trl.trainer.utils:RepeatSampler.__init__",
        f"{RESUME} asks RepeatSampler whether it shuffles, and draws its orders",
        says=("self.shuffle = ", "self.generator = torch.Generator()"),
    ),
    Seam(
        "trl.trainer.utils:add_fused_lm_head",
        f"{SHARDING} averages the gradients of the full_tensor that it gathers",
        says=("weight.full_tensor()",),
    ),
    Seam(
        "trl.models.utils:unwrap_model_for_generation",
        f"{EVALUATING} generates with it",
        "gather_deepspeed3_params",
    ),
    Seam("trl.import_utils:is_vllm_available", f"{TRAINING} asks it"),
    # transformers
    Seam(
        "transformers.modeling_utils:log_state_dict_report",
        f"{PRETRAINED} replaces it to refuse weights that are missing",
        "model pretrained_model_name_or_path loading_info",
    ),
    Seam(
        "transformers.modeling_utils:PreTrainedModel._finalize_model_loading",
        f"{PRETRAINED} waits for it to call log_state_dict_report",
        says=(
            "log_state_dict_report(\n                model=",
            "pretrained_model_name_or_path=",
            "loading_info=",
        ),
    ),
    Seam(
        "transformers.integrations.deepspeed:_hf_deepspeed_config_weak_ref",
        f"{SHARDING} hides it, to load and save in one process alone",
    ),
    Seam(
        "transformers.core_model_loading:WeightTransform.was_used",
        f"{SHARDING} keeps the conversions that were used",
    ),
    Seam(
        "transformers.core_model_loading:revert_weight_conversion",
        f"{SHARDING} leaves it the used _weight_conversions",
        says=('"_weight_conversions"',),
    ),
    Seam(
        f"{HF_TRAINER}._issue_warnings_after_load",
        f"{RESUME} keeps its warnings off _TRAINER_LOGGER",
        says=('"There were missing keys in the ch', '"There were unexpected keys in the ch'),
    ),
    Seam(
        f"{HF_TRAINER}.save_model",
        "univg_train/runs/saving.py calls it",
        "output_dir _internal_call",
    ),
    Seam(
        f"{HF_TRAINER}.log",
        "univg_train/evaluation/callback.py calls Trainer.log past TRL's own",
        "logs",
    ),
    Seam(
        f"{HF_TRAINER}.__init__",
        f"{EVALUATING} reads model_wrapped",
        says=("self.model_wrapped = ",),
    ),
    Seam(
        f"{HF_TRAINER}.create_accelerator_and_postprocess",
        f"{RESUME} reads is_deepspeed_enabled and is_fsdp_enabled",
        says=("self.is_deepspeed_enabled = ", "self.is_fsdp_enabled = "),
    ),
    Seam(
        "transformers.modeling_layers:GradientCheckpointingLayer.gradient_checkpointing",
        f"{EVALUATING} turns it off while a model generates",
    ),
    Seam(
        "transformers.models.qwen2_vl.processing_qwen2_vl:Qwen2VLProcessor._get_num_multimodal_tokens",
        "univg_eval/models/generation.py counts tokens of images with it",
        "image_sizes",
    ),
    Seam(
        "transformers.generation.utils:GenerationMixin.generate",
        f"{WATCH} and univg_eval/lmms/parity.py wrap it",
        "self inputs",
    ),
    Seam(
        "transformers.configuration_utils:PretrainedConfig._attn_implementation",
        "univg_eval/lmms/backends/reference.py puts it into the identity of a journal",
    ),
    Seam("transformers.trainer_callback:PrinterCallback", f"{TRAINING} removes it"),
    Seam(
        "transformers.integrations.integration_utils:get_available_reporting_integrations",
        f"{TRAINING} asks it",
    ),
    Seam("transformers.utils.import_utils:is_flash_attn_2_available", f"{TRAINING} asks it"),
    Seam(
        "transformers.utils.hub:cached_file",
        "univg_eval/lmms/record.py calls it",
        "path_or_repo_id filename",
    ),
    # accelerate and torch
    Seam("accelerate.data_loader:get_sampler", f"{RESUME} calls it", "dataloader"),
    Seam("accelerate.accelerator:Accelerator.is_fsdp2", f"{SHARDING} asks it"),
    Seam("accelerate.accelerator:Accelerator.get_state_dict", f"{SHARDING} wraps it"),
    Seam("accelerate.state:AcceleratorState.deepspeed_plugin", f"{SHARDING} asks it"),
    Seam(
        "torch.distributed.tensor:DTensor.full_tensor",
        f"{SHARDING} wraps it",
        "self grad_placements",
    ),
    Seam("torch:_softmax_backward_data", "univg_train/tiny/model.py calls it"),
    # lmms-eval
    Seam(f"{LMMS_TASK}._build_user_turn", f"{TASK} calls it", "visuals text"),
    Seam(f"{LMMS_TASK}.download", f"{TASK} overrides it", "self dataset_kwargs"),
    Seam(
        f"{LMMS_TASK}.construct_requests",
        f"{TASK} overrides it",
        "self doc_id ctx kwargs",
        ('kwargs.get("metadata")',),
    ),
    Seam(f"{LMMS_TASK}.process_results", f"{TASK} overrides it", "self doc results full_docs"),
    Seam(f"{LMMS_TASK}.build_all_requests", f"{TASK} overrides it", "cache_requests"),
    Seam("lmms_eval.api.task:ConfigurableTask.doc_to_visual", f"{TASK} overrides it", "self doc"),
    Seam(
        "lmms_eval.api.instance:Instance",
        f"{TASK} makes a subclass of Instance",
        "request_type arguments idx metadata doc",
    ),
    Seam(
        "lmms_eval.api.instance:GenerationResult",
        f"{WATCH} makes GenerationResult of a response",
        "text token_counts",
    ),
    Seam(
        "lmms_eval.api.instance:TokenCounts",
        f"{WATCH} makes TokenCounts",
        "input_tokens output_tokens",
    ),
    Seam("lmms_eval.api.instance:unwrap_generation_output", f"{WATCH} calls it"),
    Seam("lmms_eval.api.model:CacheHook.add_partial", f"{WATCH} wraps it", "self attr req res"),
    Seam("lmms_eval.api.model:lmms.clean", f"{RUN} puts it off"),
    Seam(
        "lmms_eval.api.model:lmms.create_from_arg_string",
        f"{RUN} calls it",
        "arg_string additional_config",
    ),
    Seam(
        "lmms_eval.evaluator:simple_evaluate",
        f"{RUN} calls it",
        "model model_args tasks batch_size device limit gen_kwargs bootstrap_iters log_samples"
        " task_manager cli_args datetime_str",
    ),
    Seam(
        "filelock._api:FileLockMeta.__call__",
        f"{RUN} calls simple_evaluate of lmms-eval, which replaces it",
    ),
    Seam(
        "lmms_eval.evaluator:evaluate",
        f"{TASK} resolves its settings where args are set",
        says=("task.args = cli_args", "lm.clean()"),
    ),
    Seam("lmms_eval.__main__:parse_eval_args", f"{COMMAND} calls it"),
    Seam("lmms_eval.__main__:cli_evaluate", f"{COMMAND} calls it"),
    Seam(
        "lmms_eval.__main__:cli_evaluate_single",
        f"{COMMAND} gives it another TaskManager",
        says=("TaskManager(args.verbosity, include_path=args.include_path",),
    ),
    Seam(MANAGER, f"{COMMAND} makes a TaskManager", "verbosity include_path include_defaults"),
    Seam(f"{MANAGER}.match_tasks", f"{COMMAND} calls it", "task_list"),
    Seam(f"{MANAGER}.all_tasks", f"{COMMAND} reads it"),
    Seam(f"{MANAGER}.all_groups", f"{COMMAND} reads it"),
    Seam(
        "lmms_eval.tasks:get_task_dict",
        f"{COMMAND} calls it",
        "task_name_list task_manager task_type",
    ),
    Seam("lmms_eval.models:get_model", f"{COMMAND} and {RUN} call it", "model_name"),
    Seam(f"{REGISTRY}.get_model_class", f"{SETTINGS} calls it", "force_simple"),
    Seam(f"{REGISTRY}.list_model_names", f"{SETTINGS} calls it"),
    Seam(
        "lmms_eval.models.registry_v2:ModelManifest",
        "univg_eval/lmms/plugin.py makes a ModelManifest",
        "model_id simple_class_path",
    ),
    Seam("lmms_eval.utils:simple_parse_args_string", f"{SETTINGS} calls it"),
    Seam(
        "lmms_eval.caching.response_cache",
        "univg_eval/lmms/response_cache.py deletes rows of cache_key and response",
        says=("CREATE TABLE IF NOT EXISTS responses", " cache_key ", " response "),
    ),
)


def moved(seam: Seam) -> str | None:
    """What is no longer as this project takes it to be, and where; None if nothing is."""
    module, _, path = seam.name.partition(":")
    package = module.partition(".")[0]
    here = f"{package} {importlib.metadata.version(package)}: {path or module}"
    try:
        found: Any = importlib.import_module(module)
        for part in filter(None, path.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return f"{here} is gone from {module}; {seam.used}"
    if seam.takes:
        lost = set(seam.takes.split()) - set(inspect.signature(found).parameters)
        if lost:
            return f"{here} takes no {', '.join(sorted(lost))}; {seam.used}"
    if seam.says:
        source = inspect.getsource(found)
        for piece in seam.says:
            if piece not in source:
                return f"{here} has no {piece!r} in its source; {seam.used}"
    return None


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
def test_what_is_used_is_where_it_was(seam: Seam) -> None:
    if problem := moved(seam):
        pytest.fail(problem, pytrace=False)


# --- the oldest versions -------------------------------------------------------------------------


def test_the_oldest_versions_are_the_lower_bounds(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = project["dependencies"] + [
        line for name in ("eval", "report", "train", "notebooks") for line in extras[name]
    ]
    bounds: dict[str, list[Version]] = {}
    for requirement in map(Requirement, listed):
        for bound in requirement.specifier:
            if bound.operator in (">=", "=="):
                bounds.setdefault(requirement.name, []).append(Version(bound.version))
    lines = (repo_root / "constraints-min.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: Version(pin) for name, pin in pins.items()} == {
        name: max(found) for name, found in bounds.items()
    }


# --- the table is whole, and says what has moved ------------------------------------------------

OF_PYTHON = {
    *("_ActionsContainer", "_ArgumentGroup", "_MutuallyExclusiveGroup", "_SubParsersAction"),
    *("_format_usage", "_asdict", "_replace", "_fields", "_exit", "_width"),
}


def foreign_private_names() -> Iterator[tuple[str, str]]:
    """(name, module) of each attribute with an underscore that nothing in the project defines."""
    read: dict[str, str] = {}
    own: set[str] = set()
    of_parents: set[str] = set()
    for path in [*ROOT.glob("univg_eval/**/*.py"), *ROOT.glob("univg_train/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    own.add(name)
                case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    own.add(name)
                case ast.Attribute(ast.Name("self" | "cls"), name, ast.Store()):
                    own.add(name)
                case ast.Attribute(value, name) if re.match("_[a-zA-Z]", name):
                    read[name] = str(path.relative_to(ROOT))
                    if isinstance(value, ast.Call) and ast.unparse(value.func) == "super":
                        of_parents.add(name)
    for name in (read.keys() - own | of_parents) - OF_PYTHON:
        yield name, read[name]


def test_every_private_name_of_a_library_has_a_row() -> None:
    found = dict(foreign_private_names())
    assert {"_log_metric", "_calculate_rewards", "_attn_implementation"} <= found.keys()
    table = " ".join(f"{seam.name} {seam.used} {seam.says}" for seam in SEAMS)
    unknown = [f"{module} uses {name}" for name, module in found.items() if name not in table]
    assert not unknown, f"give these a row in SEAMS: {unknown}"


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
def test_a_row_is_used_where_it_says(seam: Seam) -> None:
    files = re.findall(r"univg_\S+\.py", seam.used)
    words = re.sub(r"univg_\S+\.py", "", seam.used)
    # What the row says in names, else the name itself.
    names = re.findall(r"\w*(?:[a-z][A-Z]|_)\w*", words) or [re.split("[.:]", seam.name)[-1]]
    code = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    assert files and all(name in code for name in names), f"{files} use no {names}"


def test_the_message_names_what_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.modeling_utils import PreTrainedModel
    from trl.trainer.grpo_trainer import GRPOTrainer

    rows = {seam.name.rpartition(".")[2]: seam for seam in SEAMS}
    seam = rows["_generate_and_score_completions"]
    version = importlib.metadata.version("trl")
    here = f"trl {version}: GRPOTrainer._generate_and_score_completions"

    def renamed(self: Any, batch: Any) -> Any:
        return self._calculate_rewards(batch), {"advantages": advantages}  # noqa: F821

    def inlined(self: Any, inputs: Any) -> None:
        pass

    for changed, expected in (
        (renamed, f"{here} takes no inputs; univg_train/grpo/trainer.py overrides it"),
        (inlined, f"{here} has no 'self._calculate_rewards(' in its source; {seam.used}"),
    ):
        monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", changed)
        assert moved(seam) == expected
    monkeypatch.delattr(GRPOTrainer, "_generate_and_score_completions")
    assert moved(seam) == f"{here} is gone from trl.trainer.grpo_trainer; {seam.used}"

    monkeypatch.delattr(PreTrainedModel, "_finalize_model_loading")
    assert (moved(rows["_finalize_model_loading"]) or "").endswith(
        "PreTrainedModel._finalize_model_loading is gone from transformers.modeling_utils; "
        "univg_eval/models/pretrained.py waits for it to call log_state_dict_report"
    )
    gone = Seam("trl.nowhere:name", "univg_train/grpo/trainer.py calls it")
    assert moved(gone) == f"trl {version}: name is gone from trl.nowhere; {gone.used}"
