"""Make the venvs in which contestants run; run by the Python that they shall have.

    python -m benchmarks.install

The pinned versions are those of constraints.txt here and of the one above. A peer that
cannot be installed is named, with the reason, in a file from which the report has it.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path

from .registry import MISSING, PEERS, ROOT, home

SHARED = ("-e", ".[fastapi,postgresql,sqlite]", "uvicorn")


def main() -> None:
    missing: dict[str, str] = {}
    if reason := install(home(), *SHARED, "matplotlib"):
        raise SystemExit(reason)
    for package, peer in PEERS.items():
        first = (*SHARED, peer.apart) if peer.apart else ()
        if reason := install(home(peer), *first, package):
            missing[package] = reason
            print(f"{package} can't be installed: {reason}", file=sys.stderr)
    (home() / MISSING).write_text(json.dumps(missing, indent=1))


def install(place: Path, *requirements: str) -> str:
    """Install into the venv at *place*; give what pip says if it can't."""
    if not (place / "bin" / "python").exists():
        venv.create(place, with_pip=True)
    own = {each.partition("==")[0].lower() for each in requirements if "==" in each}
    pins = [
        pin
        for folder in (ROOT / "benchmarks", ROOT)
        for pin in (folder / "constraints.txt").read_text().splitlines()
        if pin.partition("==")[0].lower() not in own
    ]
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    pip = [f"{place}/bin/python", "-m", "pip", "install", "-q", "-c", f"{constraints}"]
    done = subprocess.run(
        [*pip, *requirements], cwd=ROOT, capture_output=True, text=True, check=False
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    failed = errors[0].removeprefix("ERROR: ") if errors else "pip failed"
    return failed if done.returncode else ""


if __name__ == "__main__":
    main()
