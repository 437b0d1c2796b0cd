#!/bin/sh
# Regenerates the golden files beside this script by running the originals: chainercv 0.13.1 on
# chainer 7.8.1, which need Python 3.8 and NumPy below 1.20. The files are committed, so nobody has
# to run this to run the tests.
#
# Python 3.8 is taken from $PYTHON38, the PATH, or pyenv.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv="$root/.venv-reference"

find_python() {
    for candidate in "${PYTHON38:-}" python3.8 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "make reference: Python 3.8 was not found (\$PYTHON38, PATH, pyenv)." >&2
    echo "The committed golden files stay as they are; tests do not need this step." >&2
    exit 1
}

if ! "$venv/bin/python" -c 'import chainercv' 2>/dev/null; then
    python=$(find_python)
    echo "building $venv with $python"
    "$python" -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet 'setuptools<60' 'numpy<1.20' 'cython<3' 'pillow<10' wheel
    "$venv/bin/pip" install --quiet --no-build-isolation 'chainer==7.8.1' 'chainercv==0.13.1'
fi
"$venv/bin/python" "$here/make_reference.py" "$here"
