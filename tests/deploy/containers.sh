#!/usr/bin/env bash
# Podman for the tests of the image, on a Debian machine with neither Docker nor systemd.
#
#   containers.sh up      install podman, make the base images, print `export` lines
#   containers.sh down    remove the containers, volumes and networks made from here
#   containers.sh purge   remove the images and everything else too
#
# Everything lies in $ECAN_CONTAINERS, one folder for each clone and outside of it: images have
# files that only root can read or remove. Other users of podman on the machine are not touched. With ECAN_PULL=1 the base images are pulled; otherwise they
# are made from this machine's Debian, Python 3.13 and Node under the names they usually have.
# Needs root. The facts behind the odd lines: the runtime is runc because crun refuses hybrid
# cgroups; limits are lower than podman's because a container may lack CAP_SYS_RESOURCE; this
# machine's certificates are mounted so that a proxy between it and the world is trusted in builds.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
state=${ECAN_CONTAINERS:-/var/tmp/ecan-containers-$(printf %s "$root" | cksum | cut -d' ' -f1)}
ca=/etc/ssl/certs/ca-certificates.crt
# Podman wants a short path here; one for each clone.
run=/run/ecan-$(printf %s "$state" | cksum | cut -d' ' -f1)

export CONTAINERS_CONF=$state/containers.conf
export CONTAINERS_REGISTRIES_CONF=$state/registries.conf
export CONTAINERS_STORAGE_CONF=$state/storage.conf
export BUILDAH_FORMAT=docker # OCI has no HEALTHCHECK

install_packages() {
  local missing=()
  for package in podman runc netavark aardvark-dns iptables catatonit mmdebstrap ca-certificates; do
    # Not `dpkg -s`: one that was removed, but not purged, is there for it.
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  echo "installing the system packages ${missing[*]} (for the tests of the image)" >&2
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

write_config() {
  mkdir -p "$state/networks"
  cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
volumes = ["$ca:$ca:ro"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "$state/networks"
CONF
  echo 'unqualified-search-registries = ["docker.io"]' >"$CONTAINERS_REGISTRIES_CONF"
  cat >"$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "overlay"
runroot = "$run"
graphroot = "$state/storage"
CONF
}

have() { podman image exists "$1"; }
pull() { timeout 20 podman pull -q "docker.io/library/$1" >/dev/null 2>&1; }

make_debian() {
  have localhost/debian:bookworm-slim && return
  # In a session of its own: when it fails it kills its whole process group, make and pytest too.
  setsid --wait mmdebstrap -q --variant=minbase --format=tar \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include=ca-certificates,libssl3,libsqlite3-0,libbz2-1.0,liblzma5,libffi8,libreadline8,libncursesw6,zlib1g,libuuid1,netbase,tzdata,libstdc++6 \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
    bookworm "$state/debian.tar" /etc/apt/sources.list.d/debian.sources 2>"$state/log" ||
    { cat "$state/log" >&2; exit 1; }
  podman import -q -c 'CMD ["bash"]' "$state/debian.tar" localhost/debian:bookworm-slim >/dev/null
  rm "$state/debian.tar"
}

find_python() {
  # A shim of pyenv may be on the PATH and do nothing.
  if python3.13 -c '' 2>/dev/null; then command -v python3.13; return; fi
  ls -d "$(pyenv root 2>/dev/null)"/versions/3.13.*/bin/python3.13 2>/dev/null | tail -1
}

# As the official image: CPython below /usr/local, on Debian.
make_python() {
  have localhost/python:3.13-slim && return
  local python prefix folder
  python=$(find_python) || true
  [ -n "$python" ] || { echo "no Python 3.13 on this machine (python3.13 on the PATH or in pyenv)" >&2; exit 1; }
  prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
  folder=$(mktemp -d "$state/python.XXXX")
  mkdir -p "$folder/usr/local"
  tar -C "$prefix" --exclude='lib/python3.13/test' --exclude='lib/python3.13/idlelib' \
    --exclude='lib/python3.13/tkinter' --exclude='lib/*.a' --exclude='*/config-3.13*' \
    --exclude='__pycache__' --exclude='lib/python3.13/site-packages/[!p]*' -c bin include lib |
    tar -C "$folder/usr/local" -x
  find "$folder/usr/local/bin" -type f -exec sed -i '1s|^#!.*python3.*|#!/usr/local/bin/python3.13|' {} +
  cat >"$folder/Dockerfile" <<'FILE'
FROM localhost/debian:bookworm-slim
COPY usr /usr
RUN echo /usr/local/lib >/etc/ld.so.conf.d/python.conf && ldconfig && python3 -c "import ssl, sqlite3, bz2, lzma, ctypes"
ENV LANG=C.UTF-8
CMD ["python3"]
FILE
  podman build -q --pull=never -t localhost/python:3.13-slim "$folder" >/dev/null
  rm -rf "$folder"
}

make_node() {
  have localhost/node:20-slim && return
  local folder
  folder=$(mktemp -d "$state/node.XXXX")
  mkdir -p "$folder/usr/local/bin" "$folder/usr/local/lib/node_modules"
  cp "$(node -p process.execPath)" "$folder/usr/local/bin/node"
  cp -a "$(npm root -g)/npm" "$folder/usr/local/lib/node_modules/"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$folder/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$folder/usr/local/bin/npx"
  cat >"$folder/Dockerfile" <<FILE
FROM localhost/debian:bookworm-slim
COPY usr /usr
ENV NODE_EXTRA_CA_CERTS=$ca
RUN node --version && npm --version
FILE
  podman build -q --pull=never -t localhost/node:20-slim "$folder" >/dev/null
  rm -rf "$folder"
}

# Debian's, with the official image's way of starting.
make_nginx() {
  have localhost/nginx:1.27-alpine && return
  local folder
  folder=$(mktemp -d "$state/nginx.XXXX")
  cat >"$folder/Dockerfile" <<'FILE'
FROM localhost/debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
FILE
  podman build -q --pull=never -t localhost/nginx:1.27-alpine "$folder" >/dev/null
  rm -rf "$folder"
}

up() {
  install_packages
  write_config
  if [ -n "${ECAN_PULL:-}" ] && pull python:3.13-slim && pull node:20-slim && pull nginx:1.27-alpine; then
    podman tag docker.io/library/python:3.13-slim localhost/python:3.13-slim
    podman tag docker.io/library/node:20-slim localhost/node:20-slim
    podman tag docker.io/library/nginx:1.27-alpine localhost/nginx:1.27-alpine
  else
    make_debian
    make_python
    make_node
    make_nginx
  fi
  for name in CONTAINERS_CONF CONTAINERS_REGISTRIES_CONF CONTAINERS_STORAGE_CONF BUILDAH_FORMAT; do
    printf 'export %s=%q\n' "$name" "${!name}"
  done
}

# Also after a run that was killed half-way; on a machine that has no podman yet there is nothing.
down() {
  [ -f "$CONTAINERS_STORAGE_CONF" ] && command -v podman >/dev/null || return 0
  podman rm --force --all --time 1 >/dev/null
  podman volume prune --force >/dev/null
  podman network prune --force >/dev/null
}

purge() {
  down
  local mounted
  for mounted in $(findmnt -rn -o TARGET | grep -E "^($state|$run)(/|$)" | sort -r); do umount "$mounted"; done
  rm -rf --one-file-system "$state" "$run"
}

case ${1:-up} in
up) up ;;
down) down ;;
purge) purge ;;
*)
  echo "usage: $0 up|down|purge" >&2
  exit 2
  ;;
esac
