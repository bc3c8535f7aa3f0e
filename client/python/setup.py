"""Makes the wheel a platform wheel for every Python 3: it carries libreprise.so."""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.dist import Distribution


class _PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class _AnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(distclass=_PlatformDistribution, cmdclass={"bdist_wheel": _AnyPython})
