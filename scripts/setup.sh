#!/usr/bin/env bash
# Installs Resolute and all that it needs into .venv of this checkout: system libraries, packages, the C core.
# Nothing changed since the last time: returns at once. Interrupted the last time: builds on what is whole, or starts over.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV=.venv
readonly LOG=.setup-log
readonly STAMP=$VENV/.setup-stamp
readonly EXTRAS=dev,test
readonly OLDEST_PYTHON=3.10
readonly NEEDED_GB=10 # 6.5 GB stay, the rest are downloads on their way

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf '\nsetup: %s\n' "$1" >&2
  if (($# > 1)); then printf '  %s\n' "${@:2}" >&2; fi
  exit 1
}

# Path of the interpreter to make .venv from: $PYTHON, or the one that .venv has, or the first new enough; else nothing.
# The base of a virtual environment is meant, never the environment itself: .venv may have to be made anew.
find_python() {
  local candidate
  for candidate in ${PYTHON:-$VENV/bin/python python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
    "$candidate" -c "import sys
if sys.version_info < (${OLDEST_PYTHON/./, }): sys.exit(1)
print(f'{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}')" 2>/dev/null && return
  done
  return 0
}

# Everything that an installation depends on; the same again means that there is nothing to do.
fingerprint() {
  {
    pwd
    "$1" -c 'import sys; print(sys.version)'
    cat pyproject.toml setup.py scripts/setup.sh launcher/__init__.py
    find ffcv_datasets -name '*.[ch]' -print0 | sort -z | xargs -0r sha256sum
  } | sha256sum | cut -d ' ' -f 1
}

is_set_up() { [[ -f $STAMP && $(<"$STAMP") == "$1" ]] && $VENV/bin/python -c '' 2>/dev/null; }

# Debian's names of the system packages that are not there; without an interpreter, the one of the distribution.
missing_system_packages() {
  local python=$1 library
  command -v pkg-config >/dev/null || echo pkg-config
  { command -v cc && command -v c++; } >/dev/null || echo g++
  for library in opencv4:libopencv-dev libturbojpeg:libturbojpeg0-dev libjpeg:libjpeg-dev; do
    pkg-config --exists "${library%:*}" 2>/dev/null || echo "${library#*:}"
  done
  if [[ -z $python ]]; then
    printf '%s\n' python3 python3-venv python3-dev
    return
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "${python##*/}-venv"
  "$python" -c 'import os, sysconfig
assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || echo "${python##*/}-dev"
}

# Installs Debian's packages where that can be done without asking anybody; what apt says goes to the log.
apt_install() {
  local as_root=()
  if ((EUID != 0)); then as_root=(sudo -n); fi
  command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null || return 1
  say "installing system packages: $*"
  as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q)
  "${as_root[@]}" update </dev/null >>$LOG 2>&1 &&
    "${as_root[@]}" install -y --no-install-recommends "$@" </dev/null >>$LOG 2>&1
}

install_system_packages() {
  local python=$1 missing
  mapfile -t missing < <(missing_system_packages "$python")
  ((${#missing[@]})) || return 0
  if apt_install "${missing[@]}"; then return; fi
  tail -n 20 $LOG >&2
  fail "System packages are missing: ${missing[*]}. Install them with one of" \
    "apt    sudo apt-get install pkg-config g++ libopencv-dev libturbojpeg0-dev libjpeg-dev python3-venv python3-dev" \
    "dnf    sudo dnf install pkgconf-pkg-config gcc-c++ opencv-devel turbojpeg-devel libjpeg-turbo-devel python3-devel" \
    "conda  conda install -c conda-forge pkg-config cxx-compiler libopencv libjpeg-turbo python=3.12" \
    "and then give the same command again."
}

# A Slurm for the tests to start by themselves; no service of it need run. Without it they skip.
install_slurm() {
  local PATH=$PATH:/usr/sbin
  if command -v slurmctld && command -v munged && command -v sbatch; then return; fi >>$LOG
  apt_install slurm-wlm munge || say "Slurm cannot be installed here: the tests in tests/slurm will skip"
}

# Whether .venv can be built upon: it has this Python and pip, and no package lost files to a killed installation.
is_sound() {
  # -I: the checkout is no part of what is looked at, its .egg-info may be stale
  $VENV/bin/python -I - "$("$1" -c 'import sys; print(sys.version)')" >>$LOG 2>&1 <<'PYTHON'
import sys
from importlib.metadata import distributions

import pip

if sys.version != sys.argv[1]:
    sys.exit(f".venv has Python {sys.version}, wanted is {sys.argv[1]}")
for package in distributions():
    if package.files is None or not all(f.locate().exists() for f in package.files if f.suffix != ".pyc"):
        sys.exit(f"{package.name} is not all there")
PYTHON
}

make_venv() {
  if [[ -e $VENV ]]; then
    is_sound "$1" && return
    say "$VENV is half-made or of another Python: starting over"
    rm -rf $VENV
  fi
  local free_gb
  free_gb=$(df -Pk . | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
  ((free_gb >= NEEDED_GB)) ||
    fail "$VENV needs about $NEEDED_GB GB (most of it PyTorch with CUDA); $PWD has $free_gb GB free." \
      "Free some space or clone to a larger disk, then give the same command again."
  say "making $VENV with $("$1" --version)"
  "$1" -m venv $VENV >>$LOG 2>&1 || fail "$1 could not make $VENV:" "$(tail -n 5 $LOG)"
}

# Runs `pip install`: all that it says goes to the log, what takes a while to the terminal.
pip_install() {
  # pip unpacks in TMPDIR; /tmp may be small, this disk's space was checked
  local tmp=$PWD/$VENV/tmp
  mkdir -p "$tmp"
  TMPDIR=$tmp $VENV/bin/python -I -m pip install --no-input --disable-pip-version-check --progress-bar off "$@" \
    </dev/null 2>&1 | tee -a $LOG | sed -un \
    -e 's/^ *Downloading \([A-Za-z0-9_.]*\)-.*\(([0-9]\{3,\}\.*[0-9]* MB)\).*/setup:   downloading \1 \2/p' \
    -e 's/^ *Building \(wheel\|editable\) for \([a-z_]*\) .*: started/setup:   building \2/p' \
    -e 's/^Installing collected packages: .*,.*/setup:   unpacking/p' || {
    tail -n 25 $LOG >&2
    fail "pip could not install the packages; the end of $LOG stands above." \
      "When the network failed, give the same command again: it builds on what is there."
  }
  rm -rf "$tmp"
}

install_packages() {
  say "installing packages (some minutes the first time; details in $LOG)"
  pip_install --upgrade pip
  pip_install --editable ".[$EXTRAS]"
  $VENV/bin/python -I -m pip check >>$LOG 2>&1 ||
    fail "The installed packages do not fit together:" "$(tail -n 5 $LOG)"
  $VENV/bin/python -c 'import ffcv, ray, torch, torchvision' >>$LOG 2>&1 ||
    fail "The packages are installed but cannot be imported:" "$(tail -n 5 $LOG)" \
      "If the system's OpenCV has changed since FFCV was built:" \
      "  .venv/bin/pip cache remove ffcv; rm -rf .venv; make setup"
}

main() {
  local python found stamp
  # One set-up at a time: a second one waits, then finds the work done.
  exec 9>.setup-lock
  flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }
  python=$(find_python)
  if [[ -n $python ]]; then
    if is_set_up "$(fingerprint "$python")"; then return; fi
  elif found=$(command -v "${PYTHON:-python3}") || [[ -n ${PYTHON:-} ]]; then
    fail "${found:-$PYTHON} is not Python $OLDEST_PYTHON or newer. Name one that is:" \
      "make setup PYTHON=/path/to/python3.12"
  fi

  : >$LOG
  install_system_packages "$python"
  install_slurm
  python=${python:-$(find_python)}
  [[ -n $python ]] || fail "This distribution's Python is older than $OLDEST_PYTHON. Name another one:" \
    "make setup PYTHON=/path/to/python3.12"
  make_venv "$python"
  rm -f $STAMP
  install_packages
  stamp=$(fingerprint "$python")
  echo "$stamp" >$STAMP
  say "done; the commands are in $VENV/bin"
}

main
