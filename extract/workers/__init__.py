"""Processes that extract, here or elsewhere, and what happens when one dies."""
