"""Recall: what the semantic cache knows about questions that mean the same, and how sure it may be."""
