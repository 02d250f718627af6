"""Files of data sets, read with care: text, tables, and where audio lies."""
