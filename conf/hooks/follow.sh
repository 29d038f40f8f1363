#!/bin/bash
# follow_primary_command = "hooks/follow.sh %d %h %p %D %H %r": server %d follows the new primary, an old primary too. Who cannot be rewound
# is left as it is, for a recovery.
. "$(dirname "$0")/reach.sh"
node=$1 host=$2 port=$3 data=$4 primary_host=$5 primary_port=$6
. "$here/hooks.conf"
streams="SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_host = '$primary_host' AND sender_port = $primary_port"
said=$(PGCONNECT_TIMEOUT=5 psql -XAtqw -h "${host:-/var/run/postgresql}" -p "$port" -U "${SQL_USER:-postgres}" -d postgres -c "$streams" 2>/dev/null || true)
[ "$said" != 1 ] || exit 0
run_on "$host" copy "$data" "$port" "$primary_host" "$primary_port" "$node" "" rewind
run_on "$host" start "$data"
