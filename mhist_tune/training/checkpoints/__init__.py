"""Training states, written to files and read back.

- `files`: The operations on checkpoint files, and their implementation for a folder.
- `store`: The format: training states as safetensors files, checked when they are read.
- `writer`: The checkpoints of one run, which another thread writes while training goes on.
"""
