#!/bin/sh
# Debian's PgBouncer for the suite, where it is missing and may be installed.
set -eu
PATH=$PATH:/usr/sbin
if command -v pgbouncer >/dev/null || [ -n "${PGBOUNCER_BIN:-}" ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends pgbouncer
