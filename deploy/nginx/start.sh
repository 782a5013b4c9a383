#!/bin/sh
# Of the container: writes nginx.conf and becomes nginx.
set -eu
/etc/ecan/render.sh >"${NGINX_RUN:-/tmp}/nginx.conf"
exec nginx -c "${NGINX_RUN:-/tmp}/nginx.conf" -e stderr -g 'daemon off;'
