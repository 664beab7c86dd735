"""Builds the compiled part of the plugin with the project's own CMake files. pyproject.toml says the rest."""

import pathlib
import sys

from setuptools import Extension, setup

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "cmake"))
from cmake_wheel import ROOT, CMakeBuild, version  # pylint: disable=wrong-import-position


class VllmBuild(CMakeBuild):
    option, target, component = "KVARN_VLLM", "kvarn_vllm", "vllm"


(ROOT / "build").mkdir(exist_ok=True)
setup(version=version(), options={"egg_info": {"egg_base": "../../build"}, "build": {"build_base": "../../build/vllm-wheel"}},
      ext_modules=[Extension("kvarn_vllm._native", sources=[])], cmdclass={"build_ext": VllmBuild})
