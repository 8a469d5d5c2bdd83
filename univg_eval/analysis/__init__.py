"""What scores say: intervals, comparisons, failure classes, findings."""
