"""Puts a copy of conf/ into the wheel, as upsweep/conf; all else that is built is said in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """What builds the package. An editable install has conf/ beside src/, and needs no copy."""

    def run(self) -> None:
        """Build; then copy conf/ but for `local`, which is this machine's."""
        super().run()
        if not self.editable_mode:
            copy = Path(self.build_lib, "upsweep", "conf")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree("conf", copy, ignore=shutil.ignore_patterns("local"))


setup(cmdclass={"build_py": BuildWithConf})
