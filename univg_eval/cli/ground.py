"""``univg ground``: one question to a model, its box drawn on the image."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.cli._output import refuse_inputs
from univg_eval.errors import UserError
from univg_eval.models import TINY, model_name
from univg_eval.runs.threads import choose_threads

if TYPE_CHECKING:
    from univg_eval.lmms.ground import Grounded

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "ground",
        help="ask a model one question about images, and draw its box",
        description="Ask a checkpoint one question about one or more images, or frames of a video, "
        "through the backend `univg`: its box in pixels and on 0-1, the image that it names, its "
        "reasoning, and a picture of it. Without --model the shipped tiny model answers, which "
        "knows coloured shapes alone.",
        epilog='Example: univg ground --image a.jpg --image b.jpg "Where is the cup of the first '
        'image in the second one?" --model Qwen/Qwen2.5-VL-7B-Instruct -o answer.png',
    )
    parser.add_argument("instruction", help="the question, in quotes")
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument(
        "--image", action="append", metavar="FILE", help="an image; give it again for another one"
    )
    shown.add_argument("--video", type=Path, metavar="FILE", help="a video, shown as its frames")
    parser.add_argument(
        "--frames",
        default="even:8",
        metavar="RULE",
        help="which frames of the video, default even:8, all of them: all",
    )
    parser.add_argument(
        "--target-image",
        type=int,
        metavar="N",
        help="the image, from 1, that the question names; else the answer has to name it",
    )
    parser.add_argument(
        "--model",
        default=TINY,
        metavar="CHECKPOINT",
        help=f"folder or name on the Hub, default {TINY}",
    )
    parser.add_argument("--dialect", metavar="NAME", help="how the model writes boxes")
    parser.add_argument("--prompt", metavar="STYLE", help="think, direct or official")
    parser.add_argument("--protocol", metavar="NAME", help="how the box is chosen, default univg")
    parser.add_argument("--min-pixels", type=int, metavar="N", help="of an image's area")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="of an image's area")
    parser.add_argument("--device", metavar="NAME", help="default: the GPU if there is one")
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="default 512")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="picture with the box, .png, .jpg or .webp",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, print and draw."""
    choose_threads()
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    if args.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens is {args.max_new_tokens}; expected at least 1")
    if args.out is not None:
        _require_picture(args.out)
        inputs = [("--image", Path(file)) for file in args.image or ()]
        refuse_inputs(args.out, "-o", [*inputs, ("--video", args.video and Path(args.video))])
    if args.model == TINY:
        print(
            f"univg ground: {TINY} answers, which knows coloured shapes alone; for another model "
            "give --model",
            file=sys.stderr,
        )
    with contextlib.redirect_stdout(sys.stderr):  # lmms-eval warns there while it is imported
        from univg_eval.lmms.ground import ground, video_references

    for file in args.image or [args.video]:
        if not Path(file).is_file():
            raise UserError(f"there is no file {file}")
    images = args.image if args.video is None else video_references(args.video, args.frames)
    given = {
        "pretrained": args.model,
        "device": args.device,
        "min_pixels": args.min_pixels,
        "max_pixels": args.max_pixels,
    }
    found = ground(
        images,
        args.instruction,
        model_args={name: value for name, value in given.items() if value is not None},
        options={name: getattr(args, name) for name in ("dialect", "prompt", "protocol")},
        max_new_tokens=args.max_new_tokens,
        target_image=None if args.target_image is None else args.target_image - 1,
    )
    if args.out is not None:
        _draw(found, args.out)
    if args.json:
        print(json.dumps(_values(found, args.model), indent=2, ensure_ascii=False))
    else:
        _show(found, args.out)
    return 0


def _values(found: Grounded, model: str) -> dict[str, Any]:
    answer = found.answer
    return {
        "model": model_name(model),
        "images": list(found.images),
        "status": answer.status,
        "image_index": found.image_index,
        "box": answer.box,
        "box_pixels": found.box_pixels,
        "thinking": answer.thinking,
        "response": found.response.text,
        "prompt": found.prompt,
        "prompt_tokens": found.response.prompt_tokens,
        "answer_tokens": found.response.new_tokens,
        "settings": found.settings.to_dict(),
    }


def _show(found: Grounded, out: Path | None) -> None:
    answer, place = found.answer, found.image_index
    if answer.thinking:
        print(f"Reasoning\n{answer.thinking.strip()}\n")
    print(f"Response  {found.response.text}")
    if answer.box is None:
        print(f"Box       none: {_WORDS[answer.status]}")
    else:
        print(f"Box       {' '.join(f'{value:.4f}' for value in answer.box)}   (x1 y1 x2 y2, 0-1)")
    if found.box_pixels is not None:
        print(f"Pixels    {' '.join(f'{value:.0f}' for value in found.box_pixels)}")
    if len(found.images) > 1:
        named = "not named" if place is None else f"{place + 1} of {len(found.images)}"
        print(f"Image     {named}")
    if len(answer.boxes) > 1:
        print(f"Boxes     {len(answer.boxes)} in the answer; this one counts by the rule")
    if out is not None:
        print(f"Picture   {out}")


_WORDS = {
    "no_box": "there is none to read",
    "none": "the model says that there is no such object",
    "truncated": "the response was cut off; give more --max-new-tokens",
    "invalid_box": "it is inverted, empty or outside the image",
}


def _require_picture(out: Path) -> None:
    """Refuse what cannot be written before the model is loaded."""
    from PIL import Image

    from univg_eval.files import require_writable

    if out.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"cannot write -o {out}: {out.suffix!r} is no kind of image; take .png")
    require_writable(out.parent, "-o")


def _draw(found: Grounded, out: Path) -> None:
    """The image with the box; without a known image, the first one."""
    from PIL import Image

    from univg_eval.files import whole_file
    from univg_eval.images.reading import load_reference
    from univg_eval.report.drawing import DrawnBox, draw_boxes

    form = Image.registered_extensions()[out.suffix.lower()]
    box, place = found.answer.box, found.image_index
    image = load_reference(found.images[place or 0], Path("/"))
    boxes = [] if box is None or place is None else [DrawnBox(box, "answer", "answer")]
    try:
        with whole_file(out, "wb") as file:
            draw_boxes(image, boxes, longest_side=max(image.size)).save(file, form)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write -o {out}: {error}") from error
