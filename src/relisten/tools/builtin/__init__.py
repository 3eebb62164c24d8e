"""The tools that come with the package: one file each, and nothing else in this folder."""
