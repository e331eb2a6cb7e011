"""Files: atomic writes, UTF-8 text, YAML as plain values, output folders, home folders in paths."""
