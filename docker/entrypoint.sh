#!/bin/sh
# Reads the database's password from its secret, and runs the command.
set -eu
if [ -n "${OV_POSTGRES_PASSWORD_FILE:-}" ]; then
    if [ ! -s "$OV_POSTGRES_PASSWORD_FILE" ]; then
        echo "entrypoint: $OV_POSTGRES_PASSWORD_FILE is missing or empty: run docker/setup" >&2
        exit 78
    fi
    OV_POSTGRES_PASSWORD=$(cat "$OV_POSTGRES_PASSWORD_FILE")
    export OV_POSTGRES_PASSWORD
fi
exec "$@"
