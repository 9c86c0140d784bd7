# Debian packages, and how to get what is missing of them. Sourced by quickstart and test.
# shellcheck shell=bash

BUILD_PACKAGES=(g++ cmake ninja-build pkg-config libseccomp-dev libcap-ng-dev libssl-dev
                libboost1.81-dev libtomlplusplus-dev libfmt-dev libsqlite3-dev)
# What the agents of the demonstration use.
DEMO_PACKAGES=(git gcc libc6-dev curl python3 util-linux)
TEST_PACKAGES=(ccache libgtest-dev openssl strace bubblewrap shellcheck tmux vim less procps bsdutils
               golang-go rustc rsync python3-pip python3-venv openssh-client sqlite3
               golang-golang-x-mod-dev graphviz python3-prov python3-jsonschema protobuf-compiler)

say() { printf '%s\n' "$*"; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "needs root: $* (not root, and there is no sudo)" >&2
    return 1
  fi
}

# Installs those of the named packages that are not there yet.
install_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "packages: all $# are installed"
    return 0
  fi
  say "packages: installing ${missing[*]}"
  as_root apt-get update -qq || say "apt-get update failed; trying with the package lists that are here" >&2
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
    say "could not install: ${missing[*]}" >&2
    return 1
  fi
}

# unpack_packages DIR PACKAGE…: their files below DIR, without installing them (auditd would begin to audit the machine).
unpack_packages() {
  local dir=$1
  shift
  mkdir -p "$dir/debs"
  (cd "$dir/debs" && apt-get download -qq "$@") >/dev/null 2>&1 || { say "cannot be downloaded: $*"; return 1; }
  local deb
  for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$dir"; done
}

# configure_and_build BUILD_DIR CMAKE_OPTION…
configure_and_build() {
  local dir=$1
  shift
  say "building into $dir"
  mkdir -p "$dir"
  cmake -S "$ROOT" -B "$dir" -G Ninja "$@" >"$dir/build.log" 2>&1 || { tail -n 30 "$dir/build.log" >&2; say "cmake failed" >&2; return 1; }
  cmake --build "$dir" >"$dir/build.log" 2>&1 || { grep -E 'error|FAILED' "$dir/build.log" | head -n 30 >&2; say "the build failed; see $dir/build.log" >&2; return 1; }
}
