"""Wheels for a machine with a GPU and no network: `make gpu-wheels`.

That machine is taken to have Python 3.12, torch 2.11, accelerate, peft and pytest with what they
need, and the compiled packages in `THERE`. Everything else that the stages and the GPU check
import comes along, at the versions that are installed here. There:

    python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

PYTHON = "3.12"
WANTED = (
    "bitsandbytes", "datasets", "filelock", "hydra-core", "lm-eval", "omegaconf", "pydantic",
    "ruamel.yaml", "safetensors", "torchao", "transformers",
)  # fmt: skip
"""Packages that the stages and the check import, beside those in THERE."""
THERE = (
    "accelerate", "numpy", "pandas", "peft", "pyarrow", "scikit-learn", "scipy", "torch",
    "requests", "psutil", "pyyaml", "regex", "tqdm", "packaging", "typing-extensions", "lxml",
    "jinja2", "sacrebleu", "joblib", "aiohttp", "python-dateutil", "xxhash",
)  # fmt: skip
"""Packages that are there: they are left out, and what only they need."""
KEPT_LIBRARIES = ("cpu", "cuda130")
"""Of bitsandbytes' libraries, one for each release of CUDA, those that torch 2.11 loads."""
PLATFORMS = (
    *(f"manylinux_2_{glibc}_x86_64" for glibc in (39, 35, 34, 31, 28, 27, 24, 17)),
    "manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64", "any",
)  # fmt: skip
LARGEST_BYTES = 60_000_000
"""Bytes of all wheels together, at most."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.wheels")
    parser.add_argument("folder", type=Path, help="where the wheels go; others in it are deleted")
    return parser.parse_args()


def main() -> None:
    """Gather, and say how large they are."""
    folder: Path = arguments().folder
    folder.mkdir(parents=True, exist_ok=True)
    for former in folder.glob("*.whl"):
        former.unlink()
    names = sorted(needed(WANTED, THERE))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: gather(name, folder), names))
    for wheel in folder.glob("bitsandbytes-*.whl"):
        keep_libraries(wheel, KEPT_LIBRARIES)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{folder}: {len(names)} wheels, {size / 1e6:.1f} MB: {', '.join(names)}")
    if size > LARGEST_BYTES:
        sys.exit(f"gpu-wheels: {size / 1e6:.1f} MB are more than {LARGEST_BYTES / 1e6:.0f}")


def needed(wanted: Iterable[str], there: Iterable[str]) -> set[str]:
    """Names of the wanted packages and all that they need, but for what is there.

    Raises:
        PackageNotFoundError: a package is not installed here, so that its needs are unknown.
    """
    left_out = {canonicalize_name(name) for name in there}
    found: set[str] = set()
    open_names = [canonicalize_name(name) for name in wanted]
    while open_names:
        name = open_names.pop()
        if name in found or name in left_out:
            continue
        found.add(name)
        open_names += needs_of(name)
    return found


def needs_of(name: str) -> Iterator[NormalizedName]:
    """Names of what an installed package needs on that machine."""
    there = {"python_version": PYTHON, "extra": ""}
    for text in distribution(name).requires or []:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate(there):
            yield canonicalize_name(need.name)


def gather(name: str, folder: Path) -> None:
    """The wheel of a package at the version installed here, built where there is none to download.

    Raises:
        SystemExit: it can be neither downloaded nor built.
    """
    pinned = f"{name}=={distribution(name).version}"
    pip = [sys.executable, "-m", "pip"]
    shared = ["--quiet", "--no-deps", "--disable-pip-version-check"]
    platforms = [word for each in PLATFORMS for word in ("--platform", each)]
    download = [
        *pip, "download", *shared, "--only-binary=:all:", "--python-version", PYTHON,
        "--implementation", "cp", "--abi", "cp312", "--abi", "abi3", "--abi", "none", *platforms,
        "-d", str(folder), pinned,
    ]  # fmt: skip
    if subprocess.run(download, capture_output=True).returncode == 0:
        return
    # Of pure Python, such as antlr4's runtime: any Python builds the same wheel.
    build = [*pip, "wheel", *shared, "-w", str(folder), pinned]
    built = subprocess.run(build, capture_output=True, text=True)
    if built.returncode or not any(folder.glob(f"{wheel_name(name)}-*-none-any.whl")):
        sys.exit(f"gpu-wheels: no wheel of {pinned} for Python {PYTHON}: {built.stderr[-500:]}")


def wheel_name(name: str) -> str:
    """A package's name as wheels write it, in any case."""
    letters = re.sub(r"[-_.]+", "_", name)
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in letters)


def keep_libraries(wheel: Path, kept: Iterable[str]) -> None:
    """Leave out bitsandbytes' libraries for other devices than those that are kept."""
    names = {f"bitsandbytes/libbitsandbytes_{device}.so" for device in kept}
    scratch = wheel.with_suffix(".slim")
    with ZipFile(wheel) as whole, ZipFile(scratch, "w", ZIP_DEFLATED) as slim:
        dropped = {name for name in whole.namelist() if name.endswith(".so")} - names
        for entry in whole.infolist():
            content = whole.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                listed = [line for line in lines if line.partition(",")[0] not in dropped]
                content = "".join(listed).encode()
            if entry.filename not in dropped:
                slim.writestr(entry, content)
    scratch.replace(wheel)


if __name__ == "__main__":
    try:
        main()
    except PackageNotFoundError as error:
        sys.exit(f"gpu-wheels: {error}. Run `make install` first.")
