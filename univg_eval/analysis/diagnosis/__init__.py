"""What is wrong with a set-up, seen from a few dozen answers: findings in plain words.

Pure functions of samples and responses. Only the hint about another reading
(`analysis.failures.readings`) looks at the true boxes; it is never a score.
"""

from univg_eval.analysis.diagnosis.checks import Diagnosis, diagnose
from univg_eval.analysis.diagnosis.conclusion import Conclusion, conclude
from univg_eval.analysis.diagnosis.findings import SEVERITIES, CheckFinding
from univg_eval.analysis.diagnosis.paired import (
    ControlResult,
    SampleValue,
    VariantResult,
    compare_control,
    compare_variants,
    control_findings,
    variant_findings,
)

__all__ = [
    "SEVERITIES",
    "CheckFinding",
    "Conclusion",
    "ControlResult",
    "Diagnosis",
    "SampleValue",
    "VariantResult",
    "compare_control",
    "compare_variants",
    "conclude",
    "control_findings",
    "diagnose",
    "variant_findings",
]
