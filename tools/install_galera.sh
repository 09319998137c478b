#!/bin/sh
# Debian's Galera for the suite, where it is missing and may be installed.
set -eu
if [ -e /usr/lib/galera/libgalera_smm.so ] || [ -n "${GALERA_PROVIDER:-}" ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A node that was away gets its data by rsync; the script for that looks for lsof or ss.
apt-get install -qq -y --no-install-recommends mariadb-server galera-4 rsync lsof
