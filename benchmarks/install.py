"""Make the venvs in which contestants run; run by the Python that they shall have.

The pinned versions are those of constraints.txt here and of the one above.
"""

import subprocess
import sys
import venv

from .registry import CONTESTANTS, ROOT, home

SHARED = ("-e", ".[fastapi,postgresql,sqlite]", "uvicorn")


def install(place: str, *requirements: str) -> bool:
    """Install into the venv of *place*; pip says what went wrong."""
    python = home(place) / "bin" / "python"
    if not python.exists():
        venv.create(home(place), with_pip=True)
    own = {each.partition("==")[0] for each in requirements if "==" in each}
    texts = [
        (each / "constraints.txt").read_text() for each in (ROOT / "benchmarks", ROOT)
    ]
    pins = [
        pin for text in texts for pin in text.split() if pin.split("==")[0] not in own
    ]
    constraints = home(place) / "constraints.txt"
    constraints.write_text("\n".join(pins))
    pip = [f"{python}", "-m", "pip", "install", "-q", "-c", f"{constraints}"]
    return not subprocess.run([*pip, *requirements], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    if not install("", *SHARED, "matplotlib"):
        sys.exit("the benchmarks cannot be installed")
    for each in CONTESTANTS.values():
        if each.apart:
            install(each.package, *SHARED, each.apart, each.package)
        elif each.package:
            install("", each.package)
