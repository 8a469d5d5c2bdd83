"""Dialects: spaces, resize rule, writing boxes, choosing a dialect, the command, the page."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import pickle
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from univg_eval.answers import read_answer
from univg_eval.cli import main
from univg_eval.cli.dialects import markdown_tables
from univg_eval.dialects import (
    UNKNOWN_SCALES,
    Dialect,
    declared_settings,
    dialect_for_model,
    get_dialect,
    list_dialects,
    pixel_limits,
)
from univg_eval.dialects._resize import smart_resize_wh
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
        ((1920, 1080), QWEN_LIMITS, (1932, 1092)),
        ((4000, 3000), QWEN_LIMITS, (4004, 2996)),
        ((1920, 1080), CLASS_DEFAULT, (1316, 728)),
        ((4000, 3000), CLASS_DEFAULT, (1148, 840)),
        ((1920, 1080), LMMS_EVAL, (1680, 924)),
        ((4000, 3000), LMMS_EVAL, (1456, 1092)),
        ((640, 480), LMMS_EVAL, (644, 476)),
        # 64 / 28 = 2.29 -> 2 * 28, and 56 * 56 is exactly the smallest area.
        ((64, 64), QWEN_LIMITS, (56, 56)),
        # 14 / 28 = 0.5 rounds to even 0, lifted to one factor; 28 * 1400 exceeds 3136.
        ((1400, 14), QWEN_LIMITS, (1400, 28)),
        # 42 / 28 = 1.5 rounds to even 2.
        ((42, 70), QWEN_LIMITS, (56, 56)),
        ((10, 10), QWEN_LIMITS, (56, 56)),
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


@pytest.mark.parametrize(
    ("image_wh", "message"),
    [((0, 10), "not a size"), ((10, -1), "not a size"), ((4, 900), "over 200")],
)
def test_resize_rule_refuses(image_wh: Size, message: str) -> None:
    with pytest.raises(UserError, match=message):
        smart_resize_wh(image_wh, **QWEN_LIMITS)


def test_limits_of_a_run() -> None:
    dialect = get_dialect("qwen2_5_vl", min_pixels=200704, max_pixels=1605632)
    assert dialect.pixel_limits == (200704, 1605632)
    assert dialect.input_size((1920, 1080)) == (1680, 924)
    assert dialect.decode((420.0, 231.0, 840.0, 462.0), (1920, 1080)) == (0.25, 0.25, 0.5, 0.5)
    assert "200704" in (dialect.resize_rule or "")
    assert get_dialect("qwen2_5_vl").pixel_limits == (3136, 12845056)
    # Where boxes do not depend on a resize, limits change nothing.
    assert get_dialect("qwen2_vl", max_pixels=100) == get_dialect("qwen2_vl")
    assert get_dialect("qwen2_vl").input_size((640, 480)) == (640, 480)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_pixels": 0}, "min_pixels is 0; expected"),
        ({"max_pixels": -5}, "max_pixels is -5; expected"),
        ({"min_pixels": 5000, "max_pixels": 4000}, "expected min_pixels <= max_pixels"),
        ({"max_pixels": 100}, "expected min_pixels <= max_pixels"),
    ],
)
def test_impossible_limits(limits: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_dialect("qwen2_5_vl", **limits)


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


@pytest.mark.parametrize(
    ("name", "box", "sizes", "label", "expected"),
    [
        ("univg_r1", (0.1, 0.2, 0.3, 0.4), {}, "cup", "(100,200),(300,400)"),
        ("qwen_vl", (0, 0, 1, 1), {}, None, "<box>(0,0),(999,999)</box>"),
        (
            "qwen2_vl",
            (0.1, 0.2, 0.3, 1.0),
            {},
            "cup",
            "<|object_ref_start|>cup<|object_ref_end|><|box_start|>(100,200),(300,1000)<|box_end|>",
        ),
        (
            "qwen2_5_vl",
            (0.25, 0.25, 0.5, 0.75),
            {"image_wh": (640, 480)},
            'a "b"',
            '{"bbox_2d": [161, 119, 322, 357], "label": "a \\"b\\""}',
        ),
        (
            "qwen2_5_vl",
            (0.25, 0.25, 0.5, 0.5),
            {"image_wh": (1920, 1080), "input_wh": (1680, 924)},
            None,
            '{"bbox_2d": [420, 231, 840, 462]}',
        ),
        ("cogvlm_grounding", (0.01, 0.02, 0.3, 1), {}, None, "[[010,020,300,999]]"),
        ("deepseek_vl2", (0, 0, 1, 1), {}, None, "<|det|>[[0, 0, 999, 999]]<|/det|>"),
        ("paligemma", (0, 0.5, 1, 1), {}, "cat", "<loc0512><loc0000><loc1023><loc1023> cat"),
        ("florence2", (0, 0.0999, 0.4999, 1), {}, "cat", "cat<loc_0><loc_99><loc_499><loc_999>"),
        ("gemini", (0.02, 0.1, 0.48, 0.9), {}, None, '{"box_2d": [100, 20, 900, 480]}'),
        (
            "kosmos2",
            (0.01, 0.01, 0.49, 0.49),
            {},
            None,
            # floor(0.32) = 0; ceil(0.49 * 32 - 1) = 15: cells (0, 0) and (15, 15).
            "<object><patch_index_0000><patch_index_0495></object>",
        ),
        (
            "llava_1_5",
            (0.25, 0.3, 0.75, 0.7),
            {"image_wh": (800, 400)},
            None,
            "[0.25, 0.40, 0.75, 0.60]",
        ),
        ("seed1_5_vl", (0.09, 0.18, 0.27, 1), {}, None, "<bbox>90 180 270 999</bbox>"),
        # Outside: clipped to the family's range.
        ("qwen2_vl", (-0.5, 0.2, 0.3, 1.5), {}, None, "<|box_start|>(0,200),(300,1000)<|box_end|>"),
        # Not empty, but less than a step.
        ("norm1000", (0.5, 0.5, 0.5001, 0.5001), {}, None, "[500, 500, 501, 501]"),
        ("norm1000", (0.9999, 0, 1, 1), {}, None, "[999, 0, 1000, 1000]"),
        # Inverted stays inverted: a release's fault is not repaired.
        ("norm1000", (0.5, 0.1, 0.2, 0.3), {}, None, "[500, 100, 200, 300]"),
    ],
)
def test_written_form(
    name: str, box: Any, sizes: dict[str, Size], label: str | None, expected: str
) -> None:
    assert get_dialect(name).encode(box, label=label, **sizes) == expected


@pytest.mark.parametrize(
    ("name", "box", "message"),
    [
        ("qwen2_5_vl", (0, 0, 1, 1), "neither the input's size nor the image's is given"),
        ("llava_1_5", (0, 0, 1, 1), "the image's size is not given; pass image_wh="),
        ("pixels", (0, 0, 1, 1), "the image's size is not given; pass image_wh="),
        ("norm1000", (0, 0, math.nan, 1), "cannot be written: expected finite numbers"),
        ("molmo", (0, 0, 1, 1), "points at objects and writes no boxes"),
    ],
)
def test_what_cannot_be_written(name: str, box: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        get_dialect(name).encode(box)


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


def test_every_id_of_the_collected_facts_is_known(shared_dir: Path) -> None:
    facts = json.loads((shared_dir / "facts" / "dialects.json").read_text(encoding="utf-8"))
    ids = {entry["id"] for entry in facts["dialects"]}
    generic = {"norm1000", "norm999", "norm1", "pixels"}
    assert ids <= (set(list_dialects()) - generic) | set(UNKNOWN_SCALES)
    for entry in facts["dialects"]:
        if entry["id"] in UNKNOWN_SCALES:
            continue
        dialect = get_dialect(entry["id"])
        assert dialect.confidence._asdict() == entry["confidence"], entry["id"]
        assert dialect.space.kind == entry["scale"]["kind"], entry["id"]
        rule = entry["resize_rule"]
        assert (dialect.resize_rule is None) == (rule is None), entry["id"]
        for size, by_pipeline in (rule or {}).get("examples_wh", {}).items():
            width, height = map(int, size.split("x"))
            assert list(dialect.input_size((width, height))) == by_pipeline["qwen_vl_utils"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qwen4", "unknown dialect 'qwen4'; expected one of: .*qwen2_5_vl"),
        *(
            (name, "no coordinate scale is known .* norm1000, norm1 or pix")
            for name in UNKNOWN_SCALES
        ),
    ],
)
def test_names_that_are_no_dialect(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_dialect(name)


# --- the dialect of a model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("qwen2_vl", "qwen2_vl"),
        ("qwen2_5_vl", "qwen2_5_vl"),
        ("qwen3_vl_moe", "qwen3_vl"),
        ("qwen3_5", "qwen3_5"),
        ("internvl_chat", "internvl"),
        ("minicpmo", "minicpm_v"),
        ("glm4v_moe", "glm_v"),
        ("deepseek_vl_v2", "deepseek_vl2"),
        ("kosmos-2", "kosmos2"),
        ("paligemma", "paligemma"),
        ("florence2", "florence2"),
        ("gemma4", "gemma4"),
        ("llava_onevision", "llava_onevision"),
        ("kimi_vl", "kimi_vl"),
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
    with pytest.raises(UserError, match="model_type 'qwen' of"):
        dialect_for_model(_config(tmp_path, model_type="qwen"))
    onevision = {"model_type": "llava", "architectures": ["LlavaQwenForCausalLM"]}
    assert dialect_for_model(_config(tmp_path, **onevision)) == "llava_onevision"
    assert dialect_for_model(_config(tmp_path, model_type="llava")) == "llava_1_5"


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
        ('{"model_type": "bert"}', r"model_type 'bert' .*set UNIVG_DIALECT or --dialect to one of"),
        ('{"model_type": "gemma3"}', "no coordinate scale is known .*UNIVG_DIALECT"),
        ("{}", "has no model_type"),
        ("[1]", "expected a JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"univg": "univg_r1"}', 'field "univg" is .* expected an object of strings'),
        ('{"univg": {"dialect": "klingon"}}', "unknown dialect 'klingon'"),
    ],
)
def test_configs_without_a_known_dialect(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        dialect_for_model(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json does not exist.*UNIVG_DIALECT"):
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


@pytest.mark.parametrize("value", ["many", 0, -1, 1.5, True])
def test_pixel_limits_must_be_numbers(value: Any, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"max_pixels": value}))
    with pytest.raises(UserError, match=f"max_pixels is {value!r}; expected a number of pixels"):
        pixel_limits(tmp_path)


def test_pixel_limits_are_what_transformers_loads(repo_root: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shipped = repo_root / "univg_eval" / "models" / "tiny"
    assert pixel_limits(shipped)[:2] == (12544, 12544)
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


def test_the_last_image_of_an_unknown_number() -> None:
    assert find_image_names("the last image") == []


@pytest.mark.parametrize(
    ("value", "image"),
    [("2", 1), (" Image-3 ", 2), ("second", 1), ("0", None), ("cup.jpg", None), ("٢", None)],
)
def test_value_of_an_image_key(value: str, image: int | None) -> None:
    assert read_image_value(value) == image


# --- command and page ----------------------------------------------------------------------------


def test_command_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["dialects"]) == 0
    printed = capsys.readouterr().out
    for name in (*list_dialects(), *UNKNOWN_SCALES):
        assert name in printed
    assert "low/medium/low" in printed
    assert "smart_resize to multiples of 28" in printed


def test_command_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dialects", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in content["dialects"]] == list_dialects()
    assert [entry["name"] for entry in content["unknown_scale"]] == list(UNKNOWN_SCALES)
    assert main(["dialects", "--json", "qwen2_5_vl"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["min_pixels"], one["max_pixels"]) == (3136, 12845056)


def test_command_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dialects", "smoldocling"]) == 0
    assert "scale low" in capsys.readouterr().out
    assert main(["dialects", "gemma3"]) == 0
    assert "no coordinate scale is known" in capsys.readouterr().out
    assert main(["dialects", "klingon"]) == 2
    assert "unknown dialect 'klingon'" in capsys.readouterr().err


def test_page_holds_the_generated_table(repo_root: Path) -> None:
    page = (repo_root / "docs" / "dialects.md").read_text(encoding="utf-8")
    generated = page.split("--markdown` -->\n")[1].split("<!-- end -->")[0]
    assert generated == markdown_tables(), "run `univg dialects --markdown` for docs/dialects.md"


def test_page_states_the_resize_rule_right(repo_root: Path) -> None:
    page = (repo_root / "docs" / "dialects.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) x (\d+) \|(.*)\|$", page, flags=re.MULTILINE)
    assert len(rows) == 3
    for width, height, cells in rows:
        stated = [tuple(map(int, cell.split("x"))) for cell in cells.split("|")]
        image_wh = (int(width), int(height))
        assert stated == [
            smart_resize_wh(image_wh, **limits)
            for limits in (QWEN_LIMITS, CLASS_DEFAULT, LMMS_EVAL)
        ]
