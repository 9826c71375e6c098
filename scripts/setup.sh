# Sourced by the other scripts: installs the given requirements files, and changes to the project's root.
# Uses the active virtual environment or creates .venv. A stamp holds the hash of each file that is installed.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${VIRTUAL_ENV:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    for python in python3.13 python3.12 python3.11 python3; do
      if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then break; fi
      python=
    done
    if [ -z "$python" ]; then
      echo "Python 3.11, 3.12 or 3.13 is required, but none is on the PATH; install one." >&2
      exit 2
    fi
    "$python" -m venv .venv
  fi
  . .venv/bin/activate
fi

stamp_of() {
  echo "$VIRTUAL_ENV/.$(echo "$1" | tr / -).sha256"
}

missing=()
for requirements in "$@"; do
  sha256sum --check --status "$(stamp_of "$requirements")" 2>/dev/null || missing+=("$requirements")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "Installing ${missing[*]} into $VIRTUAL_ENV." >&2
  python -m pip install --quiet --disable-pip-version-check "${missing[@]/#/--requirement=}"
  for requirements in "${missing[@]}"; do
    sha256sum "$requirements" > "$(stamp_of "$requirements")"
  done
fi
