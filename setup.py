"""The compiled modules and the compiled definitions; all else is in pyproject.toml.

In a source tree: `python setup.py build_ext --inplace`.
"""

import importlib.util
import platform
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent

cffi_modules = ["cpufw/kvm/build_kvm.py:ffibuilder"]
if platform.machine() == "x86_64":  # other machines' kernel headers do not have x86's structs
    cffi_modules.append("plugins/x86/kvm/build_kvm_x86.py:ffibuilder")


class BuildWithIndex(build_py):
    """Also compiles the definitions, so that an installed cpufw starts with a fresh index."""

    def run(self) -> None:
        """Build as usual, then the index."""
        super().run()
        if not self.editable_mode:  # there the definitions change under the user's hands
            self._compile_definitions(Path(self.build_lib) / "cpufw_cpudefs")

    def _compile_definitions(self, built: Path) -> None:
        sys.path.insert(0, str(ROOT))
        spec = importlib.util.spec_from_file_location(
            "cpufw_cpudefs", built / "__init__.py", submodule_search_locations=[str(built)]
        )
        assert spec is not None
        sys.modules["cpufw_cpudefs"] = importlib.util.module_from_spec(spec)
        from cpufw.definitions.store import SHIPPED, compile_shipped

        for folder in sorted(built.iterdir()):
            if (folder / "features.yaml").is_file():
                (folder / SHIPPED).write_bytes(compile_shipped(folder))


setup(cffi_modules=cffi_modules, cmdclass={"build_py": BuildWithIndex})
