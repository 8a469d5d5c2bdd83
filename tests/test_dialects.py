"""Dialects: spaces, resize rule, writing boxes, choosing a dialect, the command, the page."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import pickle
import re
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from univg_eval.answers import read_answer
from univg_eval.cli import main
from univg_eval.cli.dialects import markdown_tables, model_type_tables
from univg_eval.dialects import (
    MODEL_TYPES,
    UNKNOWN_SCALES,
    WITHOUT_BOXES,
    Dialect,
    declared_settings,
    dialect_for_config,
    dialect_for_model,
    get_dialect,
    list_dialects,
    pixel_limits,
)
from univg_eval.dialects._resize import fitted_wh, smart_resize_wh
from univg_eval.dialects.image_names import find_image_names, read_image_value
from univg_eval.errors import UserError

BOX_DIALECTS = [name for name in list_dialects() if get_dialect(name).gives_boxes]
Size = tuple[int, int]

# --- resize rule ---------------------------------------------------------------------------------

QWEN_LIMITS = {"factor": 28, "min_pixels": 3136, "max_pixels": 12845056}
CLASS_DEFAULT = {"factor": 28, "min_pixels": 3136, "max_pixels": 1003520}
LMMS_EVAL = {"factor": 28, "min_pixels": 200704, "max_pixels": 1605632}


@pytest.mark.parametrize(
    ("image_wh", "limits", "expected_wh"),
    [
        ((640, 480), QWEN_LIMITS, (644, 476)),
        ((4000, 3000), CLASS_DEFAULT, (1148, 840)),
        ((1920, 1080), LMMS_EVAL, (1680, 924)),
        # 64 / 28 = 2.29 -> 2 * 28, and 56 * 56 is exactly the smallest area.
        ((64, 64), QWEN_LIMITS, (56, 56)),
        # 14 / 28 = 0.5 rounds to even 0, lifted to one factor; 28 * 1400 exceeds 3136.
        ((1400, 14), QWEN_LIMITS, (1400, 28)),
        # 42 / 28 = 1.5 rounds to even 2.
        ((42, 70), QWEN_LIMITS, (56, 56)),
    ],
)
def test_resize_rule(image_wh: Size, limits: dict[str, int], expected_wh: Size) -> None:
    assert smart_resize_wh(image_wh, **limits) == expected_wh


@cache
def _library_function(package: str, module: str) -> Callable[..., tuple[int, int]]:
    """smart_resize as a library defines it, without importing the library (which loads torch)."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: nothing to compare with")
    tree = ast.parse((Path(spec.origin).parent / module).read_text(encoding="utf-8"))
    wanted: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and re.search("smart_resize$|_by_factor$", node.name):
            node.decorator_list, node.returns = [], None
            for argument in node.args.args:
                argument.annotation = None
            wanted.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            wanted.append(node)
    namespace: dict[str, Any] = {"math": math}
    exec(compile(ast.Module(wanted, []), module, "exec"), namespace)
    function: Callable[..., tuple[int, int]] = namespace["smart_resize"]
    return function


SIZES = st.tuples(st.integers(1, 6000), st.integers(1, 6000)).filter(
    lambda wh: max(wh) / min(wh) <= 200
)
LIMITS = st.sampled_from([QWEN_LIMITS, CLASS_DEFAULT, LMMS_EVAL])


@given(image_wh=SIZES, limits=LIMITS)
@example(image_wh=(1, 1), limits=QWEN_LIMITS)
@settings(max_examples=400, deadline=None)
def test_resize_rule_is_that_of_qwen_vl_utils(image_wh: Size, limits: dict[str, int]) -> None:
    function = _library_function("qwen_vl_utils", "vision_process.py")
    height, width = function(image_wh[1], image_wh[0], **limits)
    assume(height > 0 and width > 0)  # a long image can be floored to nothing there
    assert smart_resize_wh(image_wh, **limits) == (width, height)


@given(image_wh=SIZES.filter(lambda wh: min(wh) > 14), limits=LIMITS)
@settings(max_examples=400, deadline=None)
def test_resize_rule_is_that_of_transformers(image_wh: Size, limits: dict[str, int]) -> None:
    function = _library_function("transformers", "models/qwen2_vl/image_processing_qwen2_vl.py")
    height, width = function(image_wh[1], image_wh[0], **limits)
    assert smart_resize_wh(image_wh, **limits) == (width, height)


STANDARD, HIGH = {"edge": 1568, "tokens": 1568}, {"edge": 2576, "tokens": 4784}


@pytest.mark.parametrize(
    ("image_wh", "tier", "expected_wh"),
    [
        # The vendor's own examples.
        ((1075, 1520), STANDARD, (924, 1307)),
        ((1920, 1080), STANDARD, (1456, 819)),
        ((3840, 2160), STANDARD, (1456, 819)),
        ((3840, 2160), HIGH, (2576, 1449)),
        ((1920, 1080), HIGH, (1920, 1080)),
        ((1092, 1092), STANDARD, (1092, 1092)),
        # 1270 / (4 / 3) is 952.5, which would be 953 and one row of squares too many.
        ((2000, 1500), STANDARD, (1269, 952)),
        ((1, 1), STANDARD, (1, 1)),
        ((20000, 1), STANDARD, (1568, 1)),
        ((1, 20000), HIGH, (1, 2576)),
    ],
)
def test_resize_rule_of_claude(image_wh: Size, tier: dict[str, int], expected_wh: Size) -> None:
    assert fitted_wh(image_wh, **tier) == expected_wh
    name = "claude" if tier is STANDARD else "claude_high"
    assert get_dialect(name).input_size(image_wh) == expected_wh


@given(image_wh=st.tuples(st.integers(1, 6000), st.integers(1, 6000)), high=st.booleans())
@settings(max_examples=300, deadline=None)
def test_claude_shrinks_as_little_as_its_tier_allows(image_wh: Size, high: bool) -> None:
    """Against a search that tries every long side from the largest downwards."""
    tier = HIGH if high else STANDARD
    long, short = max(image_wh), min(image_wh)
    for side in range(long, 0, -1):
        other = short if side == long else max(math.floor(side / (long / short) + 0.5), 1)
        squares = [-(-n // 28) for n in (side, other)]
        if squares[0] * 28 <= tier["edge"] and squares[0] * squares[1] <= tier["tokens"]:
            break
    found = fitted_wh(image_wh, **tier)
    assert (max(found), min(found)) == (side, other)
    assert (found[0] >= found[1]) == (image_wh[0] >= image_wh[1]) or found[0] == found[1]


def test_limits_of_a_run() -> None:
    dialect = get_dialect("qwen2_5_vl", min_pixels=200704, max_pixels=1605632)
    assert dialect.pixel_limits == (200704, 1605632)
    assert dialect.decode((420.0, 231.0, 840.0, 462.0), (1920, 1080)) == (0.25, 0.25, 0.5, 0.5)
    assert "200704" in (dialect.resize_rule or "")
    # Where boxes do not depend on a resize, limits change nothing.
    assert get_dialect("qwen2_vl", max_pixels=100) == get_dialect("qwen2_vl")
    assert get_dialect("qwen2_vl").input_size((640, 480)) == (640, 480)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: smart_resize_wh((0, 10), **QWEN_LIMITS), "not a size"),
        (lambda: smart_resize_wh((10, -1), **QWEN_LIMITS), "not a size"),
        (lambda: fitted_wh((0, 10), edge=1568, tokens=1568), "not a size"),
        (lambda: smart_resize_wh((4, 900), **QWEN_LIMITS), "over 200"),
        (lambda: get_dialect("qwen2_5_vl", min_pixels=0), "min_pixels is 0"),
        (lambda: get_dialect("qwen2_5_vl", max_pixels=-5), "max_pixels is -5"),
        (lambda: get_dialect("qwen2_5_vl", max_pixels=100), "min_pixels <= max_pixels"),
        (lambda: get_dialect("qwen4"), "'qwen4'; did you mean 'qwen_vl' or 'qwen3_5'"),
        (lambda: get_dialect("gemma3"), "no coordinate scale .* norm1000, norm1 or pix"),
        (lambda: get_dialect("glm5"), "nearest are norm1000_yxyx or norm1000$"),
        (lambda: get_dialect("hunyuan_ocr"), "nearest is norm1000$"),
        (lambda: get_dialect("qwen2_5_vl").encode((0, 0, 1, 1)), "neither the input's size nor"),
        (lambda: get_dialect("llava_1_5").encode((0, 0, 1, 1)), "pass image_wh="),
        (lambda: get_dialect("pixels").encode((0, 0, 1, 1)), "pass image_wh="),
        (lambda: get_dialect("norm1000").encode((0, 0, math.nan, 1)), "finite numbers"),
        (lambda: get_dialect("molmo").encode((0, 0, 1, 1)), "writes no boxes"),
    ],
)
def test_what_is_refused(use: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        use()


# --- writing boxes and reading them back ---------------------------------------------------------


def rounding(dialect: Dialect, image_wh: Size) -> tuple[float, float]:
    """Largest error of an edge (x, y), on [0, 1], that rounding to the family's steps may cause."""
    space: Any = dialect.space
    width, height = image_wh
    match space.kind:
        case "norm_int":  # the far edge 1.0 is written as the largest number
            return (max(0.5 / space.divisor, 1 - space.largest / space.divisor),) * 2
        case "bin_center":
            return (0.5 / space.bins,) * 2
        case "norm1":
            return (0.5 / 10**space.decimals,) * 2
        case "norm100":
            return (0.005 / 10**space.decimals,) * 2
        case "norm1_padded_square":
            step = 0.5 / 10**space.decimals * max(image_wh)
            return step / width, step / height
        case "patch_grid":  # boxes of several rows and columns: centres, half a cell off at most
            return (0.5 / space.side,) * 2
    frame = dialect.input_size(image_wh)
    return 0.5 / frame[0], 0.5 / frame[1]


@st.composite
def boxes(draw: st.DrawFn, smallest: float) -> tuple[float, float, float, float]:
    width = draw(st.floats(smallest, 1))
    height = draw(st.floats(smallest, 1))
    x1 = draw(st.floats(0, 1)) * (1 - width)
    y1 = draw(st.floats(0, 1)) * (1 - height)
    return x1, y1, min(x1 + width, 1.0), min(y1 + height, 1.0)


IMAGE_SIZES = st.tuples(st.integers(56, 2000), st.integers(56, 2000)).filter(
    lambda wh: max(wh) / min(wh) <= 3
)
LABELS = st.none() | st.sampled_from(["the red cup", "dog", 'a "quoted" sign', "vélo"])


@pytest.mark.parametrize("name", BOX_DIALECTS)
@given(box=boxes(0.13), image_wh=IMAGE_SIZES, label=LABELS)
@example(box=(0.0, 0.0, 1.0, 1.0), image_wh=(640, 480), label=None)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_back(
    name: str, box: tuple[float, float, float, float], image_wh: Size, label: str | None
) -> None:
    dialect = get_dialect(name)
    text = dialect.encode(box, image_wh=image_wh, label=label)
    answer = read_answer(text, dialect, image_sizes=[image_wh])
    assert (answer.status, answer.n_boxes) == ("ok", 1), text
    assert answer.box is not None
    for value, known, error in zip(answer.box, box, rounding(dialect, image_wh) * 2, strict=True):
        assert abs(value - known) <= error + 1e-9, text


@pytest.mark.parametrize("name", BOX_DIALECTS)
@given(box=boxes(1e-6), image_wh=IMAGE_SIZES)
@settings(max_examples=40, deadline=None)
def test_small_boxes_stay_boxes(
    name: str, box: tuple[float, float, float, float], image_wh: Size
) -> None:
    assume(box[0] < box[2] and box[1] < box[3])
    dialect = get_dialect(name)
    text = dialect.encode(box, image_wh=image_wh)
    answer = read_answer(text, dialect, image_sizes=[image_wh])
    # A step of the padded square may lie in the padding as a whole.
    if dialect.space.kind != "norm1_padded_square":
        assert answer.status == "ok", text
    # An edge may have been moved by a whole step, which is twice the rounding; next to the
    # image's edge the two outermost bin centres are one and a half steps away.
    times = 3.001 if dialect.space.kind == "bin_center" else 2.001
    errors = rounding(dialect, image_wh) * 2
    for value, known, error in zip(answer.box or box, box, errors, strict=True):
        assert abs(value - known) <= times * error + 1e-9, text


LABELLED = [name for name in BOX_DIALECTS if get_dialect(name).labelled_template]


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    "label",
    ["the red cup", "dog (brown), left", "a < b", 'says "no entry"', "图片", "nobody's bag"],
)
def test_labels_of_words_are_written(name: str, label: str) -> None:
    assert get_dialect(name).encode((0.1, 0.2, 0.5, 0.9), image_wh=(640, 480), label=label)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("qwen2_vl", "cup <think>"),
        ("qwen2_vl", "<answer>"),
        ("qwen2_vl", "None."),  # it would be a second thing that the answer says
        ("qwen2_vl", "<tool_call>"),
        ("qwen2_5_vl", "</think>"),
        ("shikra", "[0.1,0.2,0.3,0.4]"),
        ("ferret", "[]"),
        ("cogvlm_grounding", "[001,002,003,004]"),
        ("florence2", "<loc_1><loc_2><loc_3><loc_4>"),
        ("florence2", "<loc_1>"),  # with the box's own four tokens a run that no box is made of
        ("paligemma", "null"),
        ("smoldocling", "None."),
        ("gemini", "a </answer>"),
    ],
)
def test_a_label_that_would_be_read_as_an_answer_is_refused(name: str, label: str) -> None:
    with pytest.raises(UserError, match=rf"label .* cannot be written in the dialect '{name}'"):
        get_dialect(name).encode((0.1, 0.2, 0.5, 0.9), image_wh=(640, 480), label=label)


PIECES = st.sampled_from(
    ["<", ">", "[", "]", "(", ")", "{", "}", '"', "'", "\\", "`", "\n", ",", ":", "/", "1", "|",
     "0.5", "cup", "None.", "null", "no such object", "<ref>", "</ref>", "<box>", "<think>",
     "<loc_7>",
     "[1, 2, 3, 4]", "(1,2),(3,4)", '"bbox_2d": [1,2,3,4]', "</point_box>", "<|box_end|>", "[]"]
)  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
@given(label=st.text(max_size=30) | st.lists(PIECES, max_size=6).map("".join))
@settings(max_examples=150, deadline=None)
def test_any_label_is_refused_or_read_back(name: str, label: str) -> None:
    dialect, box, wh = get_dialect(name), (0.1, 0.2, 0.5, 0.9), (640, 480)
    try:
        text = dialect.encode(box, image_wh=wh, label=label)
    except UserError:
        return
    answer = read_answer(text, dialect, image_sizes=[wh])
    bare = read_answer(dialect.encode(box, image_wh=wh), dialect, image_sizes=[wh])
    assert (answer.status, answer.n_boxes, answer.n_units) == ("ok", 1, 1), text
    assert (answer.box, answer.thinking) == (bare.box, None), text


WRITTEN = Path(__file__).parent / "data" / "written_boxes.jsonl"


@pytest.mark.parametrize("line", WRITTEN.read_text(encoding="utf-8").splitlines())
def test_written_form(line: str) -> None:
    row = json.loads(line)
    sizes = {name: tuple(row[name]) for name in ("image_wh", "input_wh") if name in row}
    text = get_dialect(row["dialect"]).encode(tuple(row["box"]), label=row["label"], **sizes)
    assert text == row["text"], row["reason"]


def test_kosmos_cells_are_those_of_transformers() -> None:
    """All pairs of cells of a coarse sub-grid, against the rule written out with divmod."""
    dialect = get_dialect("kosmos2")
    for upper in range(0, 1024, 37):
        for lower in range(upper, 1024, 41):
            (row1, column1), (row2, column2) = divmod(upper, 32), divmod(lower, 32)
            if upper == lower or column1 == column2 or row1 == row2:
                expected = (column1 / 32, row1 / 32, column2 / 32 + 1 / 32, row2 / 32 + 1 / 32)
            else:
                expected = tuple((2 * c + 1) / 64 for c in (column1, row1, column2, row2))
            assert dialect.decode((float(upper), float(lower))) == pytest.approx(expected)


# --- the registry --------------------------------------------------------------------------------


def test_known_names() -> None:
    names = list_dialects()
    assert len(names) == len(set(names)) >= 35
    assert not set(names) & set(UNKNOWN_SCALES)
    for name in names:
        dialect = get_dialect(name)
        assert dialect.name == name
        assert isinstance(dialect, Dialect)
        assert dialect.families and dialect.form and dialect.sources
        assert set(dialect.confidence) <= {"high", "medium", "low"}
        if {"low", "medium"} & set(dialect.confidence):
            assert any(level in note for note in dialect.notes for level in ("low", "medium")), name
        assert pickle.loads(pickle.dumps(dialect)) == dialect
        assert json.loads(json.dumps(dialect.to_dict()))["name"] == name


# Their sources were read again later: the vendor's resize, and an issue about checkpoints.
LATER_FACTS = ("claude", "vlm_r1")


def test_every_id_of_the_collected_facts_is_known(shared_dir: Path) -> None:
    facts = json.loads((shared_dir / "facts" / "dialects.json").read_text(encoding="utf-8"))
    ids = {entry["id"] for entry in facts["dialects"]}
    assert ids <= set(list_dialects()) | set(UNKNOWN_SCALES)
    for entry in facts["dialects"]:
        if entry["id"] in UNKNOWN_SCALES:
            continue
        if entry["id"] in LATER_FACTS:
            continue
        dialect = get_dialect(entry["id"])
        assert dialect.confidence._asdict() == entry["confidence"], entry["id"]
        assert dialect.space.kind == entry["scale"]["kind"], entry["id"]
        rule = entry["resize_rule"]
        assert (dialect.resize_rule is None) == (rule is None), entry["id"]
        for size, by_pipeline in (rule or {}).get("examples_wh", {}).items():
            width, height = map(int, size.split("x"))
            assert list(dialect.input_size((width, height))) == by_pipeline["qwen_vl_utils"]


# --- the dialect of a model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("qwen2_vl", "qwen2_vl"),
        ("qwen3_vl_moe", "qwen3_vl"),
        ("internvl_chat", "internvl"),
        ("deepseek_vl_v2", "deepseek_vl2"),
        ("kosmos-2", "kosmos2"),
        ("gemma4", "gemma4"),
        ("llava_onevision", "llava_onevision"),
        ("locateanything", "locate_anything"),
        ("isaac", "isaac"),
        ("lfm3_vl", "lfm2_vl"),
        ("qwen4_exp", "qwen3_5"),
    ],
)
def test_dialect_of_a_model_type(model_type: str, expected: str, tmp_path: Path) -> None:
    assert dialect_for_model(model_type) == expected
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert dialect_for_model(tmp_path) == dialect_for_model(str(tmp_path)) == expected


def _config(folder: Path, **fields: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_a_declared_dialect_wins(tmp_path: Path) -> None:
    declared = {"dialect": "univg_r1", "prompt": "think"}
    folder = _config(tmp_path, model_type="qwen2_vl", univg=declared)
    assert dialect_for_model(folder) == "univg_r1"
    assert declared_settings(folder) == declared


def test_fields_that_separate_families(tmp_path: Path) -> None:
    assert dialect_for_model(_config(tmp_path, model_type="qwen", visual={})) == "qwen_vl"
    onevision = {"model_type": "llava", "architectures": ["LlavaQwenForCausalLM"]}
    assert dialect_for_model(_config(tmp_path, **onevision)) == "llava_onevision"
    assert dialect_for_model(_config(tmp_path, model_type="llava")) == "llava_1_5"


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"_name_or_path": "IDEA-Research/Rex-Omni"}, {}),
        ({}, {"added_tokens.json": '{"<0>": 150936, "<999>": 151935}'}),
        ({}, {"tokenizer_config.json": '{"added_tokens_decoder": {"1": {"content": "<999>"}}}'}),
        ({}, {"tokenizer.json": '{"added_tokens": [{"id": 1, "content": "<999>"}]}'}),
    ],
)
def test_rex_omni_is_not_taken_for_its_base(
    config: dict[str, Any], files: dict[str, str], tmp_path: Path
) -> None:
    assert dialect_for_model(_config(tmp_path, model_type="qwen2_5_vl")) == "qwen2_5_vl"
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert dialect_for_model(_config(tmp_path, model_type="qwen2_5_vl", **config)) == "rex_omni"
    hub = {"model_type": "qwen2_5_vl"}
    assert dialect_for_config(hub, "hub", name="IDEA-Research/Rex-Omni") == "rex_omni"
    assert dialect_for_config(hub, "hub", name="Qwen/Qwen2.5-VL-3B-Instruct") == "qwen2_5_vl"


def test_llava_that_crops_is_refused(tmp_path: Path) -> None:
    _config(tmp_path, model_type="llava")
    preprocessor = tmp_path / "preprocessor_config.json"
    preprocessor.write_text('{"do_center_crop": true}')
    with pytest.raises(UserError, match=r"crops the middle .* UNIVG_DIALECT"):
        dialect_for_model(tmp_path)
    preprocessor.write_text('{"do_center_crop": true, "do_pad": true}')
    assert dialect_for_model(tmp_path) == "llava_1_5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "bert"}', r"model_type 'bert' .*UNIVG_DIALECT or --dialect"),
        ('{"model_type": "gemma3"}', "no coordinate scale .*UNIVG_DIALECT"),
        ('{"model_type": "qwen"}', "model_type 'qwen' of"),
        ("{}", "no model_type"),
        ("[1]", "a JSON object"),
        ("{", "as JSON"),
        ('{"univg": "univg_r1"}', '"univg" is .* an object of strings'),
        ('{"univg": {"dialect": "klingon"}}', "'klingon'"),
        (None, r"config\.json does not exist.*UNIVG_DIALECT"),
    ],
)
def test_configs_without_a_known_dialect(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        dialect_for_model(tmp_path)
    with pytest.raises(UserError, match="'Qwen/Qwen2-VL', which is no folder"):
        dialect_for_model("Qwen/Qwen2-VL")


QWEN = {"image_processor_type": "Qwen2VLImageProcessor"}


@pytest.mark.parametrize(
    ("processor", "preprocessor", "expected"),
    [
        (None, None, (None, None)),
        (None, {}, (None, None)),
        (None, {"min_pixels": 3136, "max_pixels": 401408}, (3136, 401408)),
        (None, {"max_pixels": 401408}, (None, 401408)),
        (None, QWEN | {"size": {"shortest_edge": 3136, "longest_edge": 5}}, (3136, 5)),
        (None, QWEN | {"max_pixels": 9, "size": {"shortest_edge": 4, "longest_edge": 1}}, (4, 9)),
        # A CLIP processor's shortest_edge is a side in pixels, not an area.
        (
            None,
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336}},
            (None, None),
        ),
        (None, QWEN | {"size": {"height": 448, "width": 448}}, (None, None)),
        # transformers 5 saves one file, and takes its part for images before the older file.
        ({"image_processor": QWEN | {"max_pixels": 784}}, None, (None, 784)),
        ({"image_processor": {"max_pixels": 784}}, {"max_pixels": 9}, (None, 784)),
        ({"image_processor": {}}, {"max_pixels": 9}, (None, None)),
        ({"processor_class": "Qwen2VLProcessor"}, {"max_pixels": 9}, (None, 9)),
    ],
)
def test_pixel_limits_of_a_folder(
    processor: dict[str, Any] | None,
    preprocessor: dict[str, Any] | None,
    expected: tuple[int | None, int | None],
    tmp_path: Path,
) -> None:
    nested, own = tmp_path / "processor_config.json", tmp_path / "preprocessor_config.json"
    for path, content in ((nested, processor), (own, preprocessor)):
        if content is not None:
            path.write_text(json.dumps(content))
    found = pixel_limits(tmp_path)
    assert (found.min_pixels, found.max_pixels) == expected
    source = nested if "image_processor" in (processor or {}) else own
    assert found.source == (None if expected == (None, None) else source)


@pytest.mark.parametrize("value", ["many", 0, 1.5, True])
def test_pixel_limits_must_be_numbers(value: Any, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"max_pixels": value}))
    with pytest.raises(UserError, match=f"max_pixels is {value!r}"):
        pixel_limits(tmp_path)


def test_pixel_limits_are_what_transformers_loads(repo_root: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shipped = repo_root / "univg_eval" / "models" / "tiny"
    assert pixel_limits(shipped)[:2] == (28224, 28224)
    for name in ("config.json", "processor_config.json"):
        (tmp_path / name).write_bytes((shipped / name).read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(QWEN | {"max_pixels": 784}))
    size = transformers.AutoImageProcessor.from_pretrained(tmp_path).size
    assert pixel_limits(tmp_path)[:2] == (size["shortest_edge"], size["longest_edge"])


# --- names of images -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("It's in the third image.", [2]),
        ("the 2nd picture and the tenth photo", [1, 9]),
        ("Image-2: a. image 3, Image #4, IMG_5, <image 6>, frame 7", [1, 2, 3, 4, 5, 6]),
        ("image 10, image 11", [9]),
        ("image one, Picture two", [0, 1]),
        ("the first and second images", [1]),
        ("the last image", [9]),
        ("image 0, imagery 3, reimage 2, image 12th, image 3.5", []),
        ("the image at 3, in the picture (4, 5)", []),
        ("the 100th image", []),
    ],
)
def test_names_of_images(text: str, images: list[int]) -> None:
    assert [image for _, _, image in find_image_names(text, 10)] == images
    # Which is the last one is not known without their number.
    assert find_image_names("the last image") == []


@pytest.mark.parametrize(
    ("value", "image"),
    [("2", 1), (" Image-3 ", 2), ("second", 1), ("0", None), ("cup.jpg", None), ("٢", None)],
)
def test_value_of_an_image_key(value: str, image: int | None) -> None:
    assert read_image_value(value) == image


# --- command and page ----------------------------------------------------------------------------


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(*arguments: str, status: int = 0) -> str:
        assert main(["dialects", *arguments]) == status
        out = capsys.readouterr()
        return out.err if status else out.out

    monkeypatch.setenv("COLUMNS", "250")
    table = printed()
    assert all(name in table for name in (*list_dialects(), *UNKNOWN_SCALES))
    assert "low/medium/low" in table
    assert "smart_resize to multiples of 28" in table
    content = json.loads(printed("--json"))
    assert [entry["name"] for entry in content["dialects"]] == list_dialects()
    assert [entry["name"] for entry in content["unknown_scale"]] == list(UNKNOWN_SCALES)
    assert {"gpt-5", "claude-opus"} & {e["pattern"].split("(")[0] for e in content["api_models"]}
    assert "skip_special_tokens=False" in printed("rex_omni")
    assert "skip_special_tokens" not in printed("internvl")
    assert "at most 1568 pixels" in printed("claude")
    one = json.loads(printed("--json", "qwen2_5_vl"))
    assert (one["min_pixels"], one["max_pixels"]) == (3136, 12845056)
    assert "scale low" in printed("smoldocling")
    assert "no coordinate scale is known" in printed("gemma3")
    assert "'klingon'" in printed("klingon", status=2)
    service = printed("openai/gpt-5.5")
    assert "GPT-5.2 to 6.1" in service and "\npixels_box_2d\n" in service
    assert json.loads(printed("--json", "gpt-5"))["name"] == "norm1_corners"


@pytest.mark.parametrize(
    ("name", "answer", "box"),
    [
        # Quarters of 1280 x 960; of the resized input, 1288 x 952 and 1269 x 952.
        ("qwen3_vl", '{"bbox_2d": [250, 500, 500, 750], "label": "red cup"}', (320, 480, 640, 720)),
        ("qwen2_5_vl", '{"bbox_2d": [322, 476, 644, 714], "label": "red cup"}',
         (320, 480, 640, 720)),
        ("claude", '{"bbox": [317, 476, 635, 714]}',
         (317 * 1280 / 1269, 480, 635 * 1280 / 1269, 720)),
        ("pixels", "[320, 480, 640, 720]", (320, 480, 640, 720)),
        ("locate_anything", "<ref>red cup</ref><box><250><500><500><750></box>",
         (320, 480, 640, 720)),
        # Centres of the cells in row 16, column 8 and row 23, column 15 of 32.
        ("kosmos2", "<phrase>red cup</phrase><object><patch_index_0520><patch_index_0751></object>",
         (340, 495, 620, 705)),
    ],
)  # fmt: skip
def test_an_example_answer_and_what_it_means(
    name: str, answer: str, box: tuple[float, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    example = get_dialect(name).example()
    assert example is not None and example.answer == answer
    assert example.box == pytest.approx(box)
    assert main(["dialects", name]) == 0
    said = capsys.readouterr().out
    assert answer in said and "in an image of 1280 x 960" in said and "read" in said


def test_a_family_that_points_has_no_example() -> None:
    assert get_dialect("molmo").example() is None
    assert get_dialect("molmo").to_dict()["example"] is None


def test_every_source_has_the_date_of_its_reading() -> None:
    for name in list_dialects():
        date.fromisoformat(get_dialect(name).to_dict()["sources_read"])


def test_every_image_text_type_of_transformers_has_a_dialect_or_a_reason(
    repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    types = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    assert main(["dialects", "--model-types", "--json"]) == 0
    rows = {row["model_type"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(types) <= rows.keys()
    assert not WITHOUT_BOXES.keys() & MODEL_TYPES.keys()
    for name, row in rows.items():
        if row["dialect"]:
            assert dialect_for_model(name) == row["dialect"]
        else:
            with pytest.raises(UserError, match=re.escape(row["why"].split(";")[0])):
                dialect_for_model(name)
    page = (repo_root / "docs" / "model_types.md").read_text(encoding="utf-8")
    assert page.split("--markdown` -->\n")[1].split("<!-- end -->")[0] == model_type_tables()


def test_the_page_holds_the_generated_table_and_the_resize_rule(repo_root: Path) -> None:
    page = (repo_root / "docs" / "dialects.md").read_text(encoding="utf-8")
    generated = page.split("--markdown` -->\n")[1].split("<!-- end -->")[0]
    assert generated == markdown_tables(), "run `univg dialects --markdown` for docs/dialects.md"
    rows = re.findall(r"^\| (\d+) x (\d+) \|(.*)\|$", page, flags=re.MULTILINE)
    assert len(rows) == 3
    for width, height, cells in rows:
        stated = [tuple(map(int, cell.split("x"))) for cell in cells.split("|")]
        image_wh = (int(width), int(height))
        assert stated == [
            smart_resize_wh(image_wh, **limits)
            for limits in (QWEN_LIMITS, CLASS_DEFAULT, LMMS_EVAL)
        ]
