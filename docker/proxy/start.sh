#!/bin/sh
# Start the proxy, or say why not: there is no password that anybody could know from the repository.
#
#   OV_PROXY_FOLDER       holds `users` (NAME:HASH a line, docker/add-user writes it) and, for TLS, `tls.crt` and `tls.key`
#   OV_PROXY_LISTEN       address and port to listen on                         (8080)
#   OV_PROXY_BIND         the host's address at which that port is published    (127.0.0.1)
#   OV_PROXY_WEBSERVER, OV_PROXY_TENSORBOARD    host:port of what is behind     (webserver:3000, tensorboard:6006)
#   OV_PROXY_RUN          folder for the filled-in configuration and the pid    (/tmp/proxy)
#   OV_PROXY_PLAIN_HTTP   `yes` allows passwords over plain HTTP from beyond this host (another proxy does TLS)
set -eu

folder=${OV_PROXY_FOLDER:-/etc/ov-proxy}
run=${OV_PROXY_RUN:-/tmp/proxy}
listen=${OV_PROXY_LISTEN:-8080}
bind=${OV_PROXY_BIND:-127.0.0.1}

refuse() {
    echo "proxy: $1" >&2
    exit 78
}

[ -r "$folder/users" ] || refuse "$folder/users is missing or unreadable: make it with docker/add-user NAME"
grep -Eq '^[^:#[:space:]]+:\$[^:[:space:]]{16,}' "$folder/users" \
    || refuse "$folder/users names nobody with a hashed password: add one with docker/add-user NAME"
if grep -Ev '^(#.*|[[:space:]]*|[^:#[:space:]]+:\$[^:[:space:]]{16,}.*)$' "$folder/users" >/dev/null; then
    refuse "$folder/users has a line that is not NAME:HASH: remove it, and add the user with docker/add-user NAME"
fi

mkdir -p "$run"
if [ -e "$folder/tls.crt" ] || [ -e "$folder/tls.key" ]; then
    [ -r "$folder/tls.crt" ] && [ -r "$folder/tls.key" ] \
        || refuse "TLS needs both $folder/tls.crt and $folder/tls.key, readable by user $(id -u)"
    cat >"$run/listen.conf" <<EOF
listen $listen ssl http2;
ssl_certificate $folder/tls.crt;
ssl_certificate_key $folder/tls.key;
ssl_protocols TLSv1.2 TLSv1.3;
ssl_session_cache shared:tls:2m;
add_header Strict-Transport-Security "max-age=31536000" always;
EOF
else
    case $bind in
        127.* | localhost | ::1 | '[::1]') ;;
        *)
            [ "${OV_PROXY_PLAIN_HTTP:-}" = yes ] || refuse "published on $bind without TLS, everybody on the way reads the passwords: \
put tls.crt and tls.key into $folder, or set OV_BIND=127.0.0.1, or OV_PLAIN_HTTP=yes where another proxy does TLS"
            ;;
    esac
    echo "listen $listen;" >"$run/listen.conf"
fi

resolver=$(awk '$1 == "nameserver" { print ($2 ~ /:/) ? "[" $2 "]" : $2; exit }' /etc/resolv.conf)
here=$(dirname "$0")
sed -e "s|@RUN@|$run|g" \
    -e "s|@USERS@|$folder/users|g" \
    -e "s|@RESOLVER@|${resolver:-127.0.0.11}|g" \
    -e "s|@WEBSERVER@|${OV_PROXY_WEBSERVER:-webserver:3000}|g" \
    -e "s|@TENSORBOARD@|${OV_PROXY_TENSORBOARD:-tensorboard:6006}|g" \
    "$here/nginx.conf.in" >"$run/nginx.conf"
exec nginx -p "$run" -e /dev/stderr -c "$run/nginx.conf"
