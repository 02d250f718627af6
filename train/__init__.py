"""Caches to models and reports. Never imports audio or encoder libraries."""
