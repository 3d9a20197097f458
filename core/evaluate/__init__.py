"""Evaluation: metrics, the synthetic test split, real clips."""
