"""What a run found, and its forms: terminal, page, Markdown, CSV, JSON."""
