#!/bin/bash
# recovery.command = "hooks/recover.sh %d %h %p %D %H %r": rebuilds server %d from the primary and starts it.
. "$(dirname "$0")/reach.sh"
node=$1 host=$2 port=$3 data=$4 primary_host=${PGHERD_PRIMARY_HOST:-$5} primary_port=${PGHERD_PRIMARY_PORT:-$6}
run_on "$host" copy "$data" "$port" "$primary_host" "$primary_port" "$node" "${PGHERD_APPLICATION_NAME:-}" all
run_on "$host" start "$data"
