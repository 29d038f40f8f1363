#!/bin/bash
# Sees to it that PostgreSQL's programs (13 or later) are on this machine. Starts no server, and leaves none of the
# package's own behind. Exit status 2: somebody else has to do it, and the one line to type was printed.
set -euo pipefail

newest() {
    local folder
    for folder in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -Vr) $(pg_config --bindir 2>/dev/null); do
        [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] || continue
        local major
        major=$("$folder/postgres" --version | grep -oE '[0-9]+' | head -1)
        if [ "$major" -ge 13 ]; then
            echo "$folder"
            return 0
        fi
    done
    return 1
}

newest >/dev/null && exit 0

if ! command -v apt-get >/dev/null; then
    echo "PostgreSQL 13 or later is missing; install its server package (initdb, postgres) and try again" >&2
    exit 2
fi
if [ "$(id -u)" = 0 ]; then
    root=()
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    root=(sudo)
else
    echo "PostgreSQL is missing, and neither root nor sudo is here to install it. Type:" >&2
    echo "    su -c '$(cd "$(dirname "$0")" && pwd)/postgres.sh'" >&2
    exit 2
fi

echo "Installing PostgreSQL (its own cluster stays off)"
# Before the package comes: it would make a cluster and start it on port 5432.
"${root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" | "${root[@]}" tee /etc/postgresql-common/createcluster.d/pgherd.conf >/dev/null
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql postgresql-contrib >/dev/null
newest
cat <<END
To remove it again:
    ${root[*]:+sudo }apt-get purge 'postgresql*' && ${root[*]:+sudo }apt-get autoremove --purge && ${root[*]:+sudo }rm -rf /etc/postgresql-common
END
