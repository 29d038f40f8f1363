# Runs on the host of a server, as the owner of its data folder, behind hooks.conf; `reach.sh` sends it there.
#   copy DATA PORT PRIMARY_HOST PRIMARY_PORT NODE APPLICATION_NAME all|rewind
#                   makes it a standby of the primary: by pg_rewind, or else ("all") by pg_basebackup; it is not started
#   start DATA      stop DATA      fence DATA      promote DATA
#                   stop: in order, or it fails; fence: by any means
set -euo pipefail
export LC_ALL=C PGCONNECT_TIMEOUT=5

die() {
    echo "on-node: $*" >&2
    exit 1
}

say() {
    echo "on-node: $*"
}

# The folder of PostgreSQL's programs.
programs() {
    local version folder
    [ -z "$PGBIN" ] || { echo "$PGBIN"; return; }
    version=$(cat "$1/PG_VERSION" 2>/dev/null || true)
    for folder in ${version:+/usr/lib/postgresql/$version/bin /usr/pgsql-$version/bin} \
        $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -Vr) "$(dirname "$(command -v pg_ctl || echo /)")"; do
        [ ! -x "$folder/pg_basebackup" ] || { echo "$folder"; return; }
    done
    die "PostgreSQL's programs are not found: set PGBIN in hooks.conf"
}

# Debian keeps configuration elsewhere.
config_file() {
    local file
    [[ $1 =~ ^/var/lib/postgresql/([^/]+)/([^/]+)/?$ ]] || return 1
    file=/etc/postgresql/${BASH_REMATCH[1]}/${BASH_REMATCH[2]}/postgresql.conf
    [ -e "$file" ] && echo "$file"
}

is_running() {
    "$bin/pg_ctl" -D "$data" status >/dev/null 2>&1
}

# A setting of the stopped server, by its files.
setting() {
    local file
    file=$(config_file "$data" || true)
    "$bin/postgres" -D "$data" ${file:+-c config_file="$file"} -C "$1" 2>/dev/null || true
}

# In order: what it has written is sent, and it may follow. There is no other way, for whoever takes its place counts on that.
stop() {
    local state
    if is_running; then
        "$bin/pg_ctl" -D "$data" -m fast -w -t "${PGHERD_TIMEOUT:-60}" stop >/dev/null 2>&1 || die "the server in $data has not stopped yet"
    fi
    state=$("$bin/pg_controldata" "$data" | sed -n 's/^Database cluster state: *//p')
    [[ $state = "shut down"* ]] || die "the server in $data did not stop in order: $state"
    say "stopped $data"
}

# Before its data is replaced: if need be without a checkpoint.
halt() {
    is_running || return 0
    "$bin/pg_ctl" -D "$data" -m fast -w -t 60 stop >/dev/null 2>&1 || "$bin/pg_ctl" -D "$data" -m immediate -w -t 30 stop >/dev/null \
        || die "the server in $data does not stop"
    say "stopped $data"
}

start() {
    local file log
    is_running && return 0
    file=$(config_file "$data" || true)
    log=$(dirname "$data")/$(basename "$data").log
    { : >>"$log"; } 2>/dev/null || log=/dev/null
    # It must not hold our output open.
    if ! "$bin/pg_ctl" -D "$data" -w -t 60 -l "$log" ${file:+-o "-c config_file=$file"} start >/dev/null 2>&1 </dev/null; then
        is_running || die "the server in $data does not start: $(tail -n 3 "$log" | tr '\n' ' ')"
        say "the server in $data is still starting"
    fi
    say "started $data"
}

# No process of it is left, not even one that has outlived its postmaster.
fence() {
    local process round
    is_running && { "$bin/pg_ctl" -D "$data" -m immediate -w -t 5 stop >/dev/null 2>&1 || true; }
    for round in 1 2 3 4 5 6 7 8 9 10; do
        local left=0
        for process in /proc/[0-9]*; do
            if [ "$(readlink "$process/cwd" 2>/dev/null)" = "$data" ] && [ "$(cat "$process/comm" 2>/dev/null)" = postgres ]; then
                kill -KILL "${process#/proc/}" 2>/dev/null || true
                left=1
            fi
        done
        [ "$left" = 1 ] || { say "nothing runs in $data"; return 0; }
        sleep 0.2
    done
    die "processes of $data are still there"
}

promote() {
    [[ $("$bin/pg_controldata" "$data") != *"in production"* ]] || { say "$data is primary already"; return 0; }
    "$bin/pg_ctl" -D "$data" -w -t 60 promote
}

# What a recovery must not touch.
guard() {
    local port=$1 own theirs
    if [ -e "$copying" ] || [ ! -d "$data" ] || [ -z "$(ls -A "$data")" ]; then
        return 0
    fi
    [ -s "$data/PG_VERSION" ] || die "$data is not empty and no data folder of PostgreSQL"
    if is_running && [ "$(sed -n 4p "$data/postmaster.pid")" != "$port" ]; then
        die "the server that runs in $data is not on port $port"
    fi
    own=$("$bin/pg_controldata" "$data" | sed -n 's/^Database system identifier: *//p')
    theirs=$("$bin/psql" -XAtqw -d "$source" -c 'SELECT system_identifier FROM pg_control_system()')
    [ "$own" = "$theirs" ] || [ "$REPLACE_FOREIGN" = yes ] || die "$data belongs to another cluster: remove it, or see REPLACE_FOREIGN in hooks.conf"
}

# Configuration and keys of the node's own, which both ways of copying would replace by the primary's.
keep_own() {
    [ -d "$data" ] && [ ! -e "$copying" ] || return 0
    (cd "$data" && find . -maxdepth 1 \( -name '*.conf' -o -name '*.key' -o -name '*.crt' -o -name '*.pem' -o -name conf.d \) -print0 \
        | tar --null --no-recursion -cf "$kept" -T - 2>/dev/null; [ ! -d conf.d ] || tar -rf "$kept" conf.d)
}

rewind() {
    local file segment
    [ -s "$data/PG_VERSION" ] && [ ! -e "$copying" ] || return 1
    file=$(config_file "$data" || true)
    # Before version 16 the new timeline is read from the last checkpoint.
    "$bin/psql" -XAtqw -d "$source" -c CHECKPOINT >/dev/null || return 1
    : >"$copying"
    "$bin/pg_rewind" -D "$data" --source-server="$source" ${file:+--config-file="$file"} || return 1
    # Is all there that it needs from there on?
    [ -z "$(setting restore_command)" ] || return 0
    segment=$("$bin/pg_controldata" "$data" | sed -n "s/^Latest checkpoint's REDO WAL file: *........//p")
    [ "$("$bin/psql" -XAtqw -d "$source" -c "SELECT count(*) > 0 FROM pg_ls_waldir() WHERE substr(name, 9) = '$segment'")" = t ] \
        || { say "the primary has not kept WAL since $segment"; return 1; }
}

base_backup() {
    local link
    : >"$copying"
    for link in "$data"/pg_tblspc/*; do
        [ ! -L "$link" ] || find "$(readlink -f "$link")" -mindepth 1 -delete
    done
    mkdir -p "$data"
    chmod 700 "$data"
    find "$data" -mindepth 1 -delete
    "$bin/pg_basebackup" -D "$data" -d "$stream" -w -X stream --checkpoint=fast
}

copy() {
    local port=$1 host=$2 primary_port=$3 node=$4 name=$5 ways=$6 parent base slot former
    parent=$(dirname "$data") base=$(basename "$data")
    copying=$parent/.$base.copying kept=$parent/.$base.kept.tar
    exec 9>"$parent/.$base.lock"
    flock -n 9 || die "another recovery of $data is under way"
    umask 077
    local point="host=$host port=$primary_port"
    source="$point user=$SQL_USER dbname=postgres $CONNINFO"
    stream="$point user=$REPLICATION_USER ${name:+application_name=$name} $CONNINFO"
    guard "$port"
    former=$([ -e "$copying" ] || setting primary_slot_name)
    slot=${SLOT//%d/$node}
    slot=${slot:-$former}
    halt
    keep_own
    if rewind; then
        say "rewound $data"
    elif [ "$ways" = all ]; then
        base_backup || die "no base backup: see above"
        say "copied $data from $host port $primary_port"
    else
        die "it cannot be rewound: rebuild it by a recovery"
    fi
    [ ! -e "$kept" ] || tar -xf "$kept" -C "$data"
    configure "$port"
    rm -f "$copying" "$kept" "$data/recovery.signal"
}

# Whom it follows; the last line of a name counts.
configure() {
    local quoted=${stream//\'/\'\'}
    {
        echo "primary_conninfo = '$quoted'"
        echo "primary_slot_name = '$slot'"
        [ -e "$kept" ] && tar -tf "$kept" | grep -qx ./postgresql.conf || config_file "$data" >/dev/null || echo "port = $1"
    } >>"$data/postgresql.auto.conf"
    : >"$data/standby.signal"
    [ -z "$slot" ] || "$bin/psql" -XAtqw -d "$source" -c "SELECT pg_create_physical_replication_slot('$slot', true) \
        WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$slot')" >/dev/null
}

main() {
    local action=$1
    data=$2
    [[ $data = /* ]] || die "the data folder must be an absolute path: set data_directory of this node"
    bin=$(programs "$data")
    shift 2
    "$action" "$@"
}

owner=$(stat -c %U "$2" 2>/dev/null || echo "${POSTGRES_USER:-postgres}")
SQL_USER=${SQL_USER:-postgres}
REPLICATION_USER=${REPLICATION_USER:-$SQL_USER}
# From memory: what runs has no standard input, and is its folder's owner.
text="$(declare -f); $(declare -p PGBIN SQL_USER REPLICATION_USER CONNINFO SLOT REPLACE_FOREIGN); set -euo pipefail; main \"\$@\""
if [ "$owner" = "$(id -un)" ]; then
    exec bash -c "$text" on-node "$@" </dev/null
elif [ "$(id -u)" = 0 ]; then
    exec runuser -u "$owner" -- bash -c "$text" on-node "$@" </dev/null
else
    exec sudo -n -u "$owner" bash -c "$text" on-node "$@" </dev/null
fi
