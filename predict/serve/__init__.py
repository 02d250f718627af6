"""The page in the browser, and the process behind it that hears what strangers send."""
