"""Builds the compiled part of the Python package with the project's own CMake files. pyproject.toml says the rest."""

import pathlib
import sys

from setuptools import Extension, setup

sys.path.append(str(pathlib.Path(__file__).resolve().parent / "cmake"))
from cmake_wheel import ROOT, CMakeBuild, version  # pylint: disable=wrong-import-position


class PythonBuild(CMakeBuild):
    option, target, component = "KVARN_PYTHON", "kvarn_python", "python"


# What setuptools writes on the way belongs with the rest that is built.
(ROOT / "build").mkdir(exist_ok=True)
setup(version=version(), options={"egg_info": {"egg_base": "build"}},
      ext_modules=[Extension("kvarn._kvarn", sources=[])], cmdclass={"build_ext": PythonBuild})
