"""Builder of the correspondence task: two unlike tools, each with a grip and a working part."""

from __future__ import annotations

from dataclasses import dataclass

from univg_eval.benchmarks.synthetic.mini.item import Draft
from univg_eval.benchmarks.synthetic.mini.layout import (
    LATTICE,
    Maker,
    RetryScene,
    SpotBox,
    instruction_box,
    to_norm,
)
from univg_eval.benchmarks.synthetic.mini.scene import COLORS, Scene, SceneObject

__all__ = ["HELD_OUT_TOOLS", "TOOLS", "Tool", "correspondence"]

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that points upwards: the working part above (or beside) the grip.

    Sizes are ranges of lattice units, (width, height) of each part.
    """

    grip: str
    grip_wh: tuple[Range, Range]
    work: str
    work_wh: tuple[Range, Range]
    work_name: str
    beside: bool = False


TOOLS: dict[str, Tool] = {
    "hammer": Tool("bar", ((3, 4), (8, 10)), "bar", ((9, 12), (4, 5)), "head"),
    "knife": Tool("bar", ((4, 4), (6, 7)), "blade", ((4, 5), (9, 11)), "blade"),
    "pan": Tool("bar", ((3, 4), (7, 9)), "oval", ((9, 11), (9, 11)), "bowl"),
    "umbrella": Tool("bar", ((3, 3), (8, 10)), "dome", ((12, 14), (6, 7)), "roof"),
    "key": Tool("hoop", ((7, 8), (7, 8)), "bit", ((5, 5), (8, 10)), "bit"),
    "mug": Tool("hoop", ((6, 6), (6, 7)), "mug", ((8, 10), (10, 11)), "body", beside=True),
    "rake": Tool("bar", ((3, 3), (9, 11)), "comb", ((10, 12), (5, 6)), "teeth"),
    "axe": Tool("bar", ((3, 4), (9, 10)), "wedge", ((8, 9), (6, 7)), "blade"),
}

_NAMES = tuple(TOOLS)
_COLOR_NAMES = tuple(COLORS)
HELD_OUT_TOOLS: frozenset[tuple[str, str]] = frozenset(
    (_COLOR_NAMES[(3 * i + 1) % len(_COLOR_NAMES)], name) for i, name in enumerate(_NAMES)
)
"""(colour, tool): no training scene shows a part of that tool in that colour."""


def _turned(spot: SpotBox, wh: tuple[int, int], turn: int) -> SpotBox:
    """A box of a (width, height) frame after quarter turns clockwise, then a mirroring."""
    x1, y1, x2, y2 = spot
    w, h = wh
    for _ in range(turn % 4):
        x1, y1, x2, y2 = h - y2, x1, h - y1, x2
        w, h = h, w
    if turn >= 4:
        x1, x2 = w - x2, w - x1
    return x1, y1, x2, y2


def _tool(maker: Maker, name: str, colors: dict[str, str]) -> dict[str, SceneObject]:
    """The two parts of a tool somewhere in the image, turned at random."""
    rng = maker.rng
    tool = TOOLS[name]
    gw, gh = (rng.randint(*r) for r in tool.grip_wh)
    ww, wh = (rng.randint(*r) for r in tool.work_wh)
    if tool.beside:
        frame = (ww + gw, max(wh, gh))
        drop = (frame[1] - gh) // 2
        work = (0, 0, ww, wh)
        grip = (ww, drop, ww + gw, drop + gh)
    else:
        frame = (max(gw, ww), gh + wh)
        work = ((frame[0] - ww) // 2, 0, (frame[0] - ww) // 2 + ww, wh)
        grip = ((frame[0] - gw) // 2, wh, (frame[0] - gw) // 2 + gw, wh + gh)
        if tool.work == "wedge":
            # The axe head sticks out to one side of the shaft's end.
            grip = (0, wh, gw, wh + gh)
            work = (0, 0, ww, wh)
            frame = (ww, gh + wh)
    turn = rng.randrange(8)
    width, height = frame if turn % 2 == 0 else (frame[1], frame[0])
    x, y = rng.randint(0, LATTICE - width), rng.randint(0, LATTICE - height)
    parts = {}
    for part, spot, shape in (("grip", grip, tool.grip), ("work", work, tool.work)):
        x1, y1, x2, y2 = _turned(spot, frame, turn)
        parts[part] = SceneObject(
            shape=shape,
            color=colors[part],
            box=to_norm((x1 + x, y1 + y, x2 + x, y2 + y)),
            turn=turn,
            name=f"{name} {'grip' if part == 'grip' else tool.work_name}",
        )
    return parts


def _colors(maker: Maker, name: str, wanted: str, *, held_out: bool) -> dict[str, str]:
    """A colour for each part; the wanted part's (colour, tool) is held out if wanted."""
    rng = maker.rng
    seen = [c for c in COLORS if (c, name) not in HELD_OUT_TOOLS]
    pool = [c for c in COLORS if (c, name) in HELD_OUT_TOOLS] if held_out else seen
    first = rng.choice(pool)
    other = rng.choice([c for c in seen if c != first])
    return {wanted: first, ("work" if wanted == "grip" else "grip"): other}


def correspondence(maker: Maker) -> Draft:
    """A part is marked in the first image; find the part with the same use in the second."""
    rng = maker.rng
    shown, wanted = rng.sample(_NAMES, 2)
    part = rng.choice(("grip", "work"))
    first = _tool(maker, shown, _colors(maker, shown, part, held_out=False))
    second = _tool(maker, wanted, _colors(maker, wanted, part, held_out=maker.held_out))
    background = maker.background()
    marked = first[part].box
    scenes = [
        Scene(background, tuple(first.values()), marks=(marked,)),
        Scene(maker.background(), tuple(second.values())),
    ]
    if first[part].color == second[part].color:
        # The same colour would give the part away without its use.
        raise RetryScene
    text = maker.say(
        (
            "The two images show two tools. A part is marked with a red box in the first image. "
            "Locate the part with the same use in {image}.",
            "Look at the part in the red box ({box}) of the first image. "
            "Which part of the tool in Image-2 has the same use? Locate it in {image}.",
            "For the part marked with the red box in the first image ({box}), "
            "locate the part that serves the same use in {image}.",
        ),
        box=instruction_box(marked),
        image=maker.image(1),
    )
    return Draft(scenes, text, second[part], 1, part, 2, {"tools": [shown, wanted], "part": part})
