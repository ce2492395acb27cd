#!/usr/bin/env bash
# pytest 9.2.0: tests in a folder named "build" are never collected, and nothing says so.
#
# "build" is among the default norecursedirs, beside "dist", "venv" and "node_modules". A project whose
# tests mirror its packages, one of which is called build, loses that whole folder: the run is green, the
# folder is not among the skipped or deselected, --strict-config and -ra add nothing, and a name on the command
# line still runs it, so whoever tries one file sees it pass. norecursedirs in the configuration replaces
# the list.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q pytest==9.2.0
mkdir -p project/tests/{build,paint} && cd project
echo 'def test_painted(): pass' > tests/paint/test_paint.py
echo 'def test_built(): raise AssertionError("a fault")' > tests/build/test_build.py
printf '[pytest]\ntestpaths = tests\naddopts = --strict-config -ra\n' > pytest.ini
pytest > all.txt 2>&1 && echo "all of tests/:        exit 0, $(tail -1 all.txt)"
pytest tests/build/test_build.py > named.txt 2>&1 || echo "named on the line:    exit $?, $(tail -1 named.txt)"
printf 'norecursedirs = .*\n' >> pytest.ini
pytest > listed.txt 2>&1 || echo "norecursedirs = .*:   exit $?, $(tail -1 listed.txt)"
pytest --version
grep -q "1 passed" all.txt || { echo "this has changed"; exit 1; }
! grep -qi "build" all.txt || { echo "this has changed"; exit 1; }
grep -q "1 failed" named.txt || { echo "this has changed"; exit 1; }
grep -q "1 failed, 1 passed" listed.txt || { echo "this has changed"; exit 1; }
