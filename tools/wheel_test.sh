#!/bin/sh
# Build the sdist and from it the wheel, and try both where src/ is out of reach: `readme`
# follows the README on each Python that is here, but for that of .venv, with which
# tests/docs does it; `promises` runs the tests of the sdist.
set -eu
root=$PWD
python=$root/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

"$python" -m build --no-isolation --outdir "$work/dist" >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
"$python" -m zipfile -l "$wheel" >"$work/files"
for file in py.typed .agents/skills/unitwork/SKILL.md; do
    grep -q "^unitwork/$file " "$work/files" ||
        { echo "no unitwork/$file in the wheel"; exit 1; }
done

# The path of Python $1, from PATH or from pyenv; nothing where it is not installed.
find_python() {
    for each in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$each" -c 'import ensurepip' 2>/dev/null; then
            "$each" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

follow_the_readme() {
    ours=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for version in 3.11 3.12 3.13 3.14; do
        [ "$version" != "$ours" ] || continue
        found=$(find_python "$version")
        if [ -z "$found" ]; then
            echo "Python $version: not installed here"
            continue
        fi
        echo "Python $version: the README, with unitwork[fastapi] and nothing else"
        "$python" tools/follow.py README.md --python "$found" --wheels "$work/dist"
    done
}

run_the_promises() {
    mkdir "$work/suite"
    tar -xzf "$work"/dist/*.tar.gz -C "$work/suite" --strip-components 1
    rm -r "$work/suite/src"
    "$python" -m venv "$work/venv"
    venv=$work/venv/bin/python
    cd "$work/suite"

    echo "the wheel alone: its own dependencies must be enough"
    "$venv" -m pip install -qq -c "$root/constraints.txt" "$wheel"
    "$venv" -c 'import unitwork'

    echo "the wheel with its extras: the promises by the tests of the sdist, on SQLite"
    "$venv" -m pip install -qq -c "$root/constraints.txt" "${wheel}[test]"
    env -u UNITWORK_TEST_POSTGRESQL "$venv" -m pytest -q -p no:cacheprovider \
        -k "not psycopg and not asyncpg and not pymysql and not asyncmy" \
        tests/promises tests/public/test_layers.py tests/public/test_twins.py
}

case $1 in
readme) follow_the_readme ;;
promises) run_the_promises ;;
*) echo "usage: $0 readme|promises"; exit 2 ;;
esac
