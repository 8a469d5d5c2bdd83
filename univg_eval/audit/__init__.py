"""What is wrong with a benchmark: its images opened, its rows compared; nothing is repaired.

A *finding* is a fault that somebody should look at before numbers are made from the set; a *note*
is a count worth knowing that is no fault, such as rows whose object is absent.
"""

from univg_eval.audit.auditing import audit_annotations, audit_benchmark, audit_samples
from univg_eval.audit.findings import KINDS, NOTES, AuditReport, Case, Finding, Kind

__all__ = [
    "KINDS",
    "NOTES",
    "AuditReport",
    "Case",
    "Finding",
    "Kind",
    "audit_annotations",
    "audit_benchmark",
    "audit_samples",
]
