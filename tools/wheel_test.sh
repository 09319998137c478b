#!/bin/sh
# Build the sdist and from it the wheel, and try the wheel where src/ is out of reach.
set -eu
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

"$python" -m build --no-isolation --outdir "$work/dist" >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
"$python" -m zipfile -l "$wheel" | grep -q '^unitwork/py\.typed ' ||
    { echo "no unitwork/py.typed in the wheel"; exit 1; }

mkdir "$work/suite"
cp -r tests pyproject.toml "$work/suite"
"$python" -m venv "$work/venv"
venv=$work/venv/bin/python

echo "the wheel alone: its own dependencies must be enough"
"$venv" -m pip install -qq -c constraints.txt "$wheel"
cd "$work/suite"
"$venv" -c 'import unitwork'

echo "the wheel with its extras: the promises, on SQLite"
"$venv" -m pip install -qq -c "$OLDPWD/constraints.txt" "${wheel}[test]"
env -u UNITWORK_TEST_POSTGRESQL "$venv" -m pytest -q -p no:cacheprovider -n 2 --dist loadfile \
    -k "not psycopg and not asyncpg and not pymysql and not asyncmy" tests/promises tests/public/test_layers.py tests/public/test_twins.py
