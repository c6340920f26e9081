"""Measurements beside the runs: features before and after, sampled word embeddings, F of LoRA."""
