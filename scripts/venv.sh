# The virtual environment of the repository, for the scripts beside this file. Runs in bash 3.2 too.

# Print the newest Python that is new enough; PYTHON names another one.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.11 or later was found. Install one, or name it: PYTHON=/path/to/python3 $0" >&2
    return 1
}

# make_venv REQUIREMENTS: bring .venv up to date with a requirements file and install the package itself.
make_venv() {
    local python state stamp=".venv/installed-$1"
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$python can't make virtual environments. On Debian and Ubuntu:" >&2
            echo "    sudo apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2
            return 1
        fi
        echo "Making the virtual environment .venv ..."
        "$python" -m venv .venv
    fi
    state=$(cat requirements*.txt pyproject.toml | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
        echo "Installing what $1 names ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$1"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
        echo "$state" >"$stamp"
    fi
}
