#!/bin/sh
# Fills nginx.conf.template and writes nginx.conf to stdout:
#
#   NGINX_CERT=/etc/ssl/ecan.pem NGINX_KEY=/etc/ssl/ecan.key deploy/nginx/render.sh >/etc/nginx/nginx.conf
set -eu

: "${NGINX_BACKENDS:=127.0.0.1:8765}" # servers, with spaces between them
: "${NGINX_SERVER_NAME:=_}"           # names of the site; _ is any
: "${NGINX_CERT:?is the certificate chain (PEM)}"
: "${NGINX_KEY:?is the private key of NGINX_CERT (PEM)}"
: "${NGINX_ROOT:=/app/gui_v2/dist}"   # the built browser app
: "${NGINX_HTTP:=80}"                 # where to redirect from: a port, or address:port
: "${NGINX_HTTPS:=443}"               # where to serve
: "${NGINX_PUBLIC_PORT:=443}"         # the port of NGINX_HTTPS as browsers see it
: "${NGINX_ACME_ROOT:=/var/www/acme}" # for certbot --webroot
: "${NGINX_RATE:=20r/s}"              # upgrades of one address
: "${NGINX_BURST:=200}"               # upgrades at once: an office after a restart
: "${NGINX_CONNECTIONS:=500}"         # open connections of one address
: "${NGINX_CONNECT:='self'}"          # connect-src: where else the page may connect to
: "${NGINX_USER:=www-data}"           # of the workers; - where nginx is not started by root
: "${NGINX_NOFILE:=65536}"            # open files of a worker
: "${NGINX_RUN:=/run}"                # pid and temporary files
: "${NGINX_MIME:=/etc/nginx/mime.types}"
: "${NGINX_ACCESS_LOG:=/var/log/nginx/access.log}"

NGINX_UPSTREAM=
for backend in $NGINX_BACKENDS; do
  NGINX_UPSTREAM="$NGINX_UPSTREAM server $backend max_fails=1 fail_timeout=5s;"
done
if [ "$NGINX_PUBLIC_PORT" = 443 ]; then
  NGINX_PUBLIC_PORT=
else
  NGINX_PUBLIC_PORT=:$NGINX_PUBLIC_PORT
fi

NGINX_USER_LINE=
[ "$NGINX_USER" = - ] || NGINX_USER_LINE="user $NGINX_USER;"

fill() {
  printf 's|${%s}|%s|g\n' "$1" "$(printf %s "$2" | sed 's/[\\&|]/\\&/g')"
}

{
  fill NGINX_UPSTREAM "$NGINX_UPSTREAM"
  fill NGINX_SERVER_NAME "$NGINX_SERVER_NAME"
  fill NGINX_CERT "$NGINX_CERT"
  fill NGINX_KEY "$NGINX_KEY"
  fill NGINX_ROOT "$NGINX_ROOT"
  fill NGINX_HTTPS "$NGINX_HTTPS"
  fill NGINX_HTTP "$NGINX_HTTP"
  fill NGINX_PUBLIC_PORT "$NGINX_PUBLIC_PORT"
  fill NGINX_ACME_ROOT "$NGINX_ACME_ROOT"
  fill NGINX_RATE "$NGINX_RATE"
  fill NGINX_BURST "$NGINX_BURST"
  fill NGINX_CONNECTIONS "$NGINX_CONNECTIONS"
  fill NGINX_CONNECT "$NGINX_CONNECT"
  fill NGINX_USER_LINE "$NGINX_USER_LINE"
  fill NGINX_NOFILE "$NGINX_NOFILE"
  fill NGINX_RUN "$NGINX_RUN"
  fill NGINX_MIME "$NGINX_MIME"
  fill NGINX_ACCESS_LOG "$NGINX_ACCESS_LOG"
} | sed -f /dev/stdin "$(dirname "$0")/nginx.conf.template"
