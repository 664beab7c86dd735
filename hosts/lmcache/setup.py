"""The package has the version of the library, and wants the Python package kvarn of the same. LMCache is not among what it wants: it
brings an engine's whole world, and is there where this is of use. pyproject.toml says the rest."""

import pathlib
import sys

from setuptools import setup

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "cmake"))
from cmake_wheel import ROOT, version  # pylint: disable=wrong-import-position

# What setuptools writes on the way belongs with the rest that is built.
BUILD = ROOT / "build" / "lmcache-wheel"
BUILD.mkdir(parents=True, exist_ok=True)
setup(version=version(), options={"egg_info": {"egg_base": str(BUILD)}, "build": {"build_base": str(BUILD)}},
      install_requires=[f"kvarn=={version()}", "numpy>=1.24"])
