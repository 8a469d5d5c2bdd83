"""What is wrong with a set-up, told from a few dozen answers: findings in plain words.

Pure functions of samples and responses. Only the *hint* of `analysis.diagnosis.readings` looks
at the true boxes in order to judge how answers were read; it is never a score.
"""

from univg_eval.analysis.diagnosis.checks import Diagnosis, diagnose
from univg_eval.analysis.diagnosis.findings import SEVERITIES, Finding, share_words
from univg_eval.analysis.diagnosis.paired import (
    ControlResult,
    Outcome,
    VariantResult,
    compare_control,
    compare_variants,
    control_findings,
    variant_findings,
)
from univg_eval.analysis.diagnosis.readings import (
    Candidate,
    Limits,
    Reading,
    Suspicion,
    candidates,
    read_all,
    suspect,
)
from univg_eval.analysis.diagnosis.verdict import Verdict, judge

__all__ = [
    "SEVERITIES",
    "Candidate",
    "ControlResult",
    "Diagnosis",
    "Finding",
    "Limits",
    "Outcome",
    "Reading",
    "Suspicion",
    "VariantResult",
    "Verdict",
    "candidates",
    "compare_control",
    "compare_variants",
    "control_findings",
    "diagnose",
    "judge",
    "read_all",
    "share_words",
    "suspect",
    "variant_findings",
]
