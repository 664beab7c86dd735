"""Builds the compiled part of the plugin with the project's own CMake files. pyproject.toml says the rest."""

import pathlib
import re
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).parent.resolve().parents[1]


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
    def build_extension(self, ext):
        tree = ROOT / "build" / f"vllm-{sys.implementation.cache_tag}"  # kept between builds
        target = pathlib.Path(self.get_ext_fullpath(ext.name)).resolve().parent
        tools = [f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}", *pybind11_folder()]
        subprocess.run(["cmake", "-S", ROOT, "-B", tree, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DKVARN_VLLM=ON",
                        "-DKVARN_BUILD_TESTS=OFF", *tools], check=True)
        subprocess.run(["cmake", "--build", tree, "--target", "kvarn_vllm"], check=True)
        subprocess.run(["cmake", "--install", tree, "--prefix", target.parent, "--component", "vllm", "--strip"], check=True)


(ROOT / "build").mkdir(exist_ok=True)
setup(version=version(), options={"egg_info": {"egg_base": "../../build"}, "build": {"build_base": "../../build/vllm-wheel"}},
      ext_modules=[Extension("kvarn_vllm._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
