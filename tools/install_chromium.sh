#!/bin/sh
# Debian's Chromium for the suite, where it is missing and may be installed.
set -eu
if command -v chromium >/dev/null || [ -n "${CHROMIUM_BIN:-}" ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core
