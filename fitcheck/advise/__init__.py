"""Rank, check and plan: pure functions over estimates."""
