#!/bin/bash
# Sees to it that PgBouncer, pgpool-II and openssl are on this machine, for the comparison, or those packages that are named. Their own
# services stay off. Exit status 2: somebody else has to install them, and the one line to type was printed.
set -euo pipefail

missing=()
for pair in pgbouncer:pgbouncer pgpool:pgpool2 openssl:openssl python3:python3; do
    [ "$#" = 0 ] || [[ " $* " == *" ${pair##*:} "* ]] || continue
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ "${#missing[@]}" != 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "${missing[*]} missing; install them and try again" >&2
    exit 2
fi
if [ "$(id -u)" = 0 ]; then
    root=()
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    root=(sudo)
else
    echo "${missing[*]} missing, and neither root nor sudo is here to install them. Type:" >&2
    echo "    su -c '$(cd "$(dirname "$0")" && pwd)/install.sh'" >&2
    exit 2
fi

echo "Installing ${missing[*]} (their services stay off)"
# While the packages come, nothing may start: Debian's own way to say so, unless this machine says it already.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
fi
# postgresql-common comes along and would make a cluster with the next server package.
"${root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" | "${root[@]}" tee /etc/postgresql-common/createcluster.d/pgherd.conf >/dev/null
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
for service in pgbouncer pgpool2; do
    # Not at the next boot either. Without systemd there is nothing to switch off.
    if [[ " ${missing[*]} " == *" $service "* ]] && command -v systemctl >/dev/null; then
        "${root[@]}" systemctl disable "$service" >/dev/null 2>&1 || true
    fi
done
cat <<END
To remove them again:
    ${root[*]:+sudo }apt-get purge ${missing[*]} && ${root[*]:+sudo }apt-get autoremove --purge
END
