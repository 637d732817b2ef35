"""Training states on their way to a file and back.

- `files`: The operations on checkpoint files, and their implementation for a folder.
- `store`: Training states as safetensors files, written whole or not at all and checked when they are read.
- `writer`: The checkpoints of one run, as `fit` uses them: copied by the thread that trains, written by another
  thread.
"""
