"""Make the venvs in which contestants run; run by the Python that they shall have.

    python -m benchmarks.install

The pinned versions are those of constraints.txt here and of the one above. A peer that
cannot be installed is named, with the reason, in a file from which the report has it.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from .registry import MISSING, PEERS, ROOT, home

SHARED = ["-e", ".[fastapi,postgresql,sqlite]", "uvicorn"]
PLOTS = ["matplotlib"]


def main() -> None:
    missing: dict[str, str] = {}
    if reason := install(home(), [*SHARED, *PLOTS]):
        raise SystemExit(reason)
    for package, peer in PEERS.items():
        first = SHARED if peer.apart else []
        if reason := install(home(peer), [*first, package, *peer.apart]):
            missing[package] = reason
            print(f"{package} can't be installed: {reason}", file=sys.stderr)
    (home() / MISSING).write_text(json.dumps(missing, indent=1))


def install(place: Path, requirements: Iterable[str]) -> str:
    """Install into the venv at *place*; gives what pip says if it can't."""
    requirements = list(requirements)
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    constraints = place / "constraints.txt"
    constraints.write_text(pinned(requirements))
    pip = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints)]
    done = subprocess.run(
        [*pip, *requirements], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return errors[0].removeprefix("ERROR: ") if errors else "pip failed"


def pinned(requirements: Iterable[str]) -> str:
    """All pins but of what *requirements* pin themselves."""
    own = {name.partition("==")[0].lower() for name in requirements if "==" in name}
    lines = "".join(
        (folder / "constraints.txt").read_text()
        for folder in (ROOT / "benchmarks", ROOT)
    ).splitlines()
    kept = [line for line in lines if line.partition("==")[0].lower() not in own]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    main()
