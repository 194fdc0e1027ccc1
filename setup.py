"""What pyproject.toml cannot say: the C core's libraries, and that jobs/ and slurm/ go inside the package."""

import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
DECODE = Path("ffcv_datasets/_decode")


def pkg_config(option: str, library: str) -> list[str]:
    """Flags that pkg-config gives for `library`, without their -I, -L or -l; none where it is not known."""
    if shutil.which("pkg-config") is None:
        return []
    answer = subprocess.run(["pkg-config", option, library], capture_output=True, text=True)
    return [flag[2:] for flag in answer.stdout.split()] if answer.returncode == 0 else []


def decode_core() -> list[Extension]:
    """The C core as one extension module; portable code, so no -march=native."""
    sources = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / DECODE).glob("*.c"))
    if not sources:
        return []
    headers = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / DECODE).glob("*.h"))
    return [
        Extension(
            "ffcv_datasets._decode._core",
            sources,
            depends=headers,
            include_dirs=pkg_config("--cflags-only-I", "libjpeg"),
            library_dirs=pkg_config("--libs-only-L", "libjpeg"),
            libraries=pkg_config("--libs-only-l", "libjpeg") or ["jpeg"],
            extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"],
            extra_link_args=["-pthread"],
        )
    ]


setup(
    packages=[*find_packages(include=["launcher*", "ffcv_datasets*"]), "launcher.jobs", "launcher.slurm.site"],
    # In a checkout recipes and site profiles lie beside the package, when installed inside it: launcher/jobs/*.yaml.
    package_dir={"launcher.jobs": "jobs", "launcher.slurm.site": "slurm"},
    package_data={
        "*": ["py.typed"],
        "launcher.jobs": ["*.yaml"],
        "launcher.slurm.site": ["README.md", "resolute.sbatch", "profiles/*.yaml"],
    },
    include_package_data=False,
    ext_modules=decode_core(),
)
