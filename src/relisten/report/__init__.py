"""Reports: runs as one HTML file. `build.write_report` writes it."""
