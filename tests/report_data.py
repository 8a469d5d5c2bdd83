"""Two runs on a small benchmark with all that a page about runs has to bear."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageColor, ImageDraw
from run_records import record_of

from univg_eval.runs.record import RunRecord
from univg_eval.samples import GroundingSample, Target, write_benchmark

__all__ = ["ATTACKS", "BENCHMARK", "N_PLAIN", "contrast", "make_samples", "prepare", "two_runs"]

BENCHMARK = "toy"
N_PLAIN = 40
TRUTH = (0.1, 0.2, 0.5, 0.6)
HIT, NEAR, MISS = "(100,200),(500,600)", "(100,200),(500,350)", "(700,700),(900,900)"

# Each sets window.attacked if it is ever taken for markup or script.
ATTACKS = [
    "<script>window.attacked=1</script>",
    "</script><script>window.attacked=1</script>",
    "<!--<script>",
    "<img src=x onerror=window.attacked=1>",
    "<svg onload=window.attacked=1>",
    '"><img src=x onerror=window.attacked=1>',
    "' autofocus onfocus=window.attacked=1 x='",
    "<iframe srcdoc='<script>parent.attacked=1</script>'></iframe>",
    "javascript:window.attacked=1",
    "<a href=javascript:window.attacked=1>x</a>",
    "<style>*{display:none}</style>",
    "</style></title></textarea></dialog><base href=//example.org>",
    "<form action=//example.org><input name=query>",
    "<link rel=stylesheet href=//example.org/a.css>",
    "<meta http-equiv=refresh content='0;url=//example.org'>",
    "\u2028window.attacked=1\u2029",
    "__proto__",
    "${window.attacked=1}",
    "{{constructor.constructor('window.attacked=1')()}}",
    "\u202egnp.exe\u0000\ud800",
]


def make_samples() -> list[GroundingSample]:
    """Plain samples, then those without object, with several, without images, and attacks."""
    samples = [_sample(f"toy-{n:03d}", ("a", "b", "c")[n % 3], number=n) for n in range(N_PLAIN)]
    samples.append(_sample("toy-absent", "absent", targets=()))
    several = (Target(1, TRUTH), Target(1, (0.7, 0.7, 0.9, 0.9)))
    samples.append(_sample("toy-several", "several", targets=several))
    samples.append(_sample("toy-missing", "a", images=("toy/images/0.png", "toy/images/no.png")))
    samples.append(_sample("toy-broken", "a", images=("toy/images/0.png", "toy/images/bad.png")))
    invalid = (Target(1, (0.5, 0.5, 0.5, 0.5)),)
    samples.append(_sample("toy-invalid", "a", targets=invalid))
    # A prepared set is UTF-8, which halves of surrogate pairs are not; a response may hold them.
    texts = [text.replace("\ud800", "") for text in ATTACKS]
    samples += [
        _sample(
            f"{text} {n}",
            f"task {text}" if n < 3 else "c",
            instruction=text,
            images=("toy/images/0.png", f"toy/images/{text[:20].replace(chr(0), '')}.png"),
            extra={"label": text, text: text},
        )
        for n, text in enumerate(texts)
    ]
    return samples


def _sample(name: str, task: str, *, number: int | None = None, **changes) -> GroundingSample:
    fields = {
        "id": name,
        "benchmark": BENCHMARK,
        "task": task,
        "split": "test",
        "images": (f"toy/images/{(number or 0) % 5}.png", "toy/images/5.png"),
        "widths": (64, 64),
        "heights": (48, 48),
        "instruction": "Where is it?" if number is None else f"Where is number {number}?",
        "targets": (Target(1, TRUTH),),
        "image_is_given": True,
        "cluster": name,
    }
    return GroundingSample(**(fields | changes))


def prepare(root: Path) -> list[GroundingSample]:
    """Write the benchmark below a data root."""
    samples = make_samples()
    folder = root / BENCHMARK / "images"
    folder.mkdir(parents=True)
    for number in range(6):
        image = Image.new("RGB", (64, 48), (40 * number, 90, 120))
        ImageDraw.Draw(image).rectangle((6, 10, 32, 29), fill="#ddcc00")
        image.save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no image at all")
    write_benchmark(samples, benchmark=BENCHMARK, root=root)
    return samples


def two_runs(samples: list[GroundingSample]) -> list[RunRecord]:
    """A is right on every second plain sample, B on every third; both answer the attacks."""
    a, b = {}, {}
    for number, sample in enumerate(samples[:N_PLAIN]):
        thought = f"<think>Number {number}, hmm.</think><answer>"
        a[sample.id] = f"{thought}{HIT if number % 2 == 0 else MISS}</answer>"
        b[sample.id] = HIT if number % 3 == 0 else NEAR
    b["toy-000"] = "I cannot see it, zebra."
    b["toy-001"] = None
    for sample in samples[N_PLAIN:]:
        a[sample.id] = b[sample.id] = f"{sample.instruction} {HIT}"
    a["toy-absent"], b["toy-absent"] = "There is no such object.", HIT
    a["toy-several"] = f"{HIT}, (700,700),(900,900)"
    for text in ATTACKS:
        sample = next(s for s in samples if s.instruction == text.replace("\ud800", ""))
        a[sample.id] = f"<think>{text}</think><answer>{text}{HIT}</answer>"
        b[sample.id] = text
    attack = ATTACKS[5]
    return [
        record_of(samples, a, label="first"),
        record_of(samples, b, label=f"second {attack}"),
    ]


def contrast(a: str, b: str) -> float:
    """Contrast of two colours of CSS by WCAG 2, from 1 to 21."""

    def luminance(color: str) -> float:
        parts = [part / 255 for part in ImageColor.getrgb(color)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
