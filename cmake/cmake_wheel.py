"""What the setup.py of every Python package here shares: the library's version, and a compiled part built by CMake."""

import pathlib
import re
import shutil
import subprocess
import sys

from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parents[1]


def version():
    header = (ROOT / "include" / "kvarn" / "version.h").read_text(encoding="utf-8")
    return ".".join(re.search(rf"KVARN_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def pybind11_folder():
    """That of the Python package, if there is one; else CMake looks for the system's."""
    try:
        import pybind11  # pylint: disable=import-outside-toplevel
    except ImportError:
        return []
    return [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]


class CMakeBuild(build_ext):
    """Builds and installs one component; subclasses name it."""

    option = ""  # that makes CMake build it
    target = ""
    component = ""

    def build_extension(self, ext):
        # Kept between builds, so that only what changed is compiled.
        tree = ROOT / "build" / f"{self.component}-{sys.implementation.cache_tag}"
        folder = pathlib.Path(self.get_ext_fullpath(ext.name)).resolve().parent
        # pip may bring tools that are gone the next time: what the tree remembers of them is set again.
        tools = [f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}", *pybind11_folder()]
        subprocess.run(["cmake", "-S", ROOT, "-B", tree, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", f"-D{self.option}=ON",
                        "-DKVARN_BUILD_TESTS=OFF", *tools], check=True)
        subprocess.run(["cmake", "--build", tree, "--target", self.target], check=True)
        subprocess.run(["cmake", "--install", tree, "--prefix", folder.parent, "--component", self.component, "--strip"], check=True)
