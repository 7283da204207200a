"""Findings → alerts → decisions: grouping, dedup, budget, policy."""
