"""Other libraries' readers of boxes, in a process of their own, and GLM's reader by its rule.

OpenCV, which supervision loads, cannot read PNG where another zlib was loaded before it, so these
libraries stay out of the tests' process. Run as a script this module answers questions on standard
input, one JSON object a line: ``{"peer": …, "text": …, "wh": …, "input_wh": …}``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

Size = tuple[int, int]
Boxes = list[tuple[float, ...]]


class PeerError(Exception):
    """The reader raised; the message is the error's type."""


class MissingError(Exception):
    """The reader is not installed, or this version of it does not have it."""


class Readers:
    """The process with the libraries, started at the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, peer: str, text: str, wh: Size, input_wh: Size) -> Boxes:
        """The boxes that a peer reads, in pixels of `wh`.

        Raises:
            PeerError: it refuses the text with an error.
            MissingError: it is not there.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
            )
        assert self._process.stdin and self._process.stdout
        question = {"peer": peer, "text": text, "wh": wh, "input_wh": input_wh}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "missing" in answer:
            raise MissingError(answer["missing"])
        if "error" in answer:
            raise PeerError(answer["error"])
        return [tuple(box) for box in answer["boxes"]]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


# --- in the process of the libraries -------------------------------------------------------------


def _florence(text: str, wh: Size) -> dict[str, Any]:
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    task = "phrase_grounding"
    tokenizer = SimpleNamespace(all_special_tokens=["<s>", "</s>", "<pad>"])
    processor = Florence2PostProcessor({task: {}}, tokenizer)
    found = processor(text=text, image_size=wh, parse_tasks=[task])[task]
    pairs = [(box, entity["cat_name"]) for entity in found for box in entity["bbox"]]
    return {"bboxes": [box for box, _ in pairs], "labels": [label for _, label in pairs]}


def _kosmos(text: str) -> tuple[str, list[Any]]:
    from transformers.models.kosmos2.processing_kosmos2 import Kosmos2Processor

    processor: Any = SimpleNamespace(eoi_token="</image>")
    caption, entities = Kosmos2Processor.post_process_generation(processor, text)
    return caption, entities


def _boxes(peer: str, text: str, wh: Size, input_wh: Size) -> Any:
    from supervision.detection import vlm

    if peer == "florence_2":
        return vlm.from_florence_2({"<CAPTION_TO_PHRASE_GROUNDING>": _florence(text, wh)}, wh)[0]
    if peer == "florence_2 region":
        return vlm.from_florence_2({"<REGION_TO_CATEGORY>": text}, wh)[0]
    if peer == "kosmos_2":
        return vlm.from_kosmos_2(_kosmos(text), wh)[0]
    if peer == "moondream":
        return vlm.from_moondream(json.loads(text), wh)
    if peer == "qwen_2_5_vl":
        return vlm.from_qwen_2_5_vl(text, input_wh, wh)[0]
    reader = "google_" + peer if peer.startswith("gemini") else peer
    if not hasattr(vlm, f"from_{reader}"):
        raise ImportError(f"this version of supervision has no from_{reader}")
    return getattr(vlm, f"from_{reader}")(text, wh)[0]


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    wh, input_wh = tuple(question["wh"]), tuple(question["input_wh"])
    try:
        boxes = _boxes(question["peer"], question["text"], wh, input_wh)
        return {"boxes": [[float(value) for value in box] for box in boxes]}
    except ImportError as error:
        return {"missing": str(error)}
    except Exception as error:  # noqa: BLE001  whatever a peer raises is its answer
        return {"error": type(error).__name__}


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


# --- GLM's reader --------------------------------------------------------------------------------

_PAIRS = {"[": "]", "{": "}", "<": ">", "(": ")", "<bbox>": "</bbox>"}
_FOUR = re.compile(r"\s*" + r"\s*,\s*".join([r"(\d+(?:\.\d*)?)"] * 4) + r"\s*")


def read_as_glm(text: str) -> Boxes:
    """The rule of GLM's published reader, written anew, as no package has it.

    Four plain numbers between any of five kinds of brackets are a box, wherever they stand. Where
    ``bbox_2d`` occurs only objects are read: those of the last whole list of them, or if no list
    is whole, every whole object.
    """
    if "bbox_2d" not in text:
        boxes: Boxes = []
        for start in range(len(text)):
            for opening, closing in _PAIRS.items():
                if text.startswith(opening, start):
                    numbers = _FOUR.match(text, start + len(opening))
                    if numbers and text.startswith(closing, numbers.end()):
                        boxes.append(tuple(map(float, numbers.groups())))
        return boxes
    lists = [found for value in _literals(text, "[", "]") if (found := _objects(value))]
    return lists[-1] if lists else _objects(_literals(text, "{", "}"))


def _objects(value: list[Any]) -> Boxes:
    found = [item["bbox_2d"] for item in value if isinstance(item, dict) and "bbox_2d" in item]
    return [tuple(box) for box in found if len(box) == 4 and not isinstance(box[0], str)]


def _literals(text: str, opening: str, closing: str) -> list[Any]:
    """Every part of the text that is a whole list or a whole object."""
    found = []
    for start in (i for i, character in enumerate(text) if character == opening):
        for end in (i for i in range(start, len(text)) if text[i] == closing):
            try:
                found.append(ast.literal_eval(text[start : end + 1]))
            except (SyntaxError, ValueError):
                continue
            break
    return found


if __name__ == "__main__":
    _serve()
