"""Write the lock files of `locks/` again from pyproject.toml, with the newest versions that it allows.

`cuda.txt` is complete, for every platform. `cpu.txt` leaves out torch and the libraries of GPUs: on a CPU, torch comes
from PyTorch's own index. `build.txt` is what builds the wheel.

Usage: python tools/locks.py [--constraint FILE]     FILE keeps versions, such as the output of `pip freeze`
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
GPU = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")


def main() -> None:
    """Run uv for each file."""
    more = sys.argv[1:]
    extras = ["--extra", "s3", "--extra", "power"]
    compile_lock("pyproject.toml", *extras, *more, to="cuda.txt")
    names = re.findall(r"^([a-z0-9-]+)==", (LOCKS / "cuda.txt").read_text(), re.MULTILINE)
    left_out = [option for name in names if GPU.fullmatch(name) for option in ("--no-emit-package", name)]
    compile_lock("pyproject.toml", *extras, *more, *left_out, "--constraint", "locks/cuda.txt", to="cpu.txt")
    compile_lock("locks/build.in", *more, to="build.txt")


def compile_lock(*arguments: str, to: str) -> None:
    """Write one file."""
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--upgrade", "--quiet"]
    options += ["--custom-compile-command", "make locks", "--output-file", f"locks/{to}"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *arguments, *options]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
