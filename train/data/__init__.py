"""Caches to tensors."""
