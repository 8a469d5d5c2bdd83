"""Chains of thought from a teacher model."""
