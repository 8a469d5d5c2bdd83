"""What kind of failure each miss is.

A *miss* is a sample with one target whose IoU stays below the threshold, or a sample without a
target that was not answered with "there is no such object". Samples left out of the score
(`excluded`) and samples with several targets are no misses here; they are counted apart. Every
miss is in exactly one class of `FAILURES`: the first, in this order, whose condition holds.

With u the IoU of box and target, I the area they share, P the area of the box, T that of the
target:

=================  ============================================================================
invalid_truth      the true box is inverted or empty: nothing can hit it. Only under rules that
                   score such rows
truncated          status ``truncated``
wrong_image        the box is on another image: where the model had to find the image, it names
                   another one; where the image was given, all its boxes are labelled with others
no_box             status ``no_box``
said_none          status ``none``, with an object there
false_alarm        a box, with no object there
other_scale        u < 0.1, and a reading in another dialect, or with other pixel limits, makes
                   IoU >= 0.5 of it, a reading that the run's misses support as a whole: see below
invalid_box        status ``invalid_box``
wrong_object       IoU >= 0.5 with another known object of the target's image, and more than u
loose              I / T >= 0.8 and P > T
tight              I / P >= 0.8 and P < T
shifted            u >= 0.1, or the centre of the box or of the target lies in the other
image_mixup        IoU >= 0.5 with a known object of another image of the sample
elsewhere          none of these
=================  ============================================================================

Why this order. What the score itself says comes first: no box, no geometry. A box on another image
has nothing to do with the target's coordinates, so these are not looked at. Then the numbers are
questioned before what they seem to mean: where the run shows that they were read in a wrong scale,
that a box so read lies outside, on a distractor, or large around the target, is a consequence. A
distractor comes before the place: a box on the neighbour that touches the target is a choice of
the wrong object, not a bad outline. ``loose`` and ``tight`` exclude each other by the areas, and
either implies that a centre lies inside. An object of another image is looked for last: objects
move little from frame to frame, and a bad outline of the target would often fit its place in the
next.

**The scale is a hint, never a score.** There are some fifty other readings, and one of them hits
now and then by chance. So ``other_scale`` needs evidence from the whole run: the test of
`readings.suspect`, which ``univg check`` makes too, on all misses with u < 0.1. Only samples that
the reading so found hits are in the class; in a run with few misses the class stays empty.

Published protocols do not read which image is named, so there is no ``wrong_image`` under them.
"""

from univg_eval.analysis.failures.analysis import RunFailures, analyse, classify_run
from univg_eval.analysis.failures.kinds import FAILURES, Failure, FailureKind, FailureShares
from univg_eval.analysis.failures.readings import Limits, Suspicion

__all__ = [
    "FAILURES",
    "Failure",
    "FailureKind",
    "FailureShares",
    "Limits",
    "RunFailures",
    "Suspicion",
    "analyse",
    "classify_run",
]
