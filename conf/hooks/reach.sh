# Read by the other hooks: runs on-node.sh on the host of a server, here or over ssh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Is this host meant?
is_local() {
    local address
    case $1 in
        '' | /* | localhost | 127.* | ::1) return 0 ;;
    esac
    for address in "$(hostname 2>/dev/null)" $(hostname -f 2>/dev/null) $(hostname -I 2>/dev/null); do
        [ "$1" != "$address" ] || return 0
    done
    return 1
}

# run_on HOST ACTION ARGUMENTS…
run_on() {
    local host=$1 SSH_USER='' SSH_OPTIONS=''
    shift
    if is_local "$host"; then
        (cd / && bash -s -- "$@" < <(cat "$here/hooks.conf" "$here/on-node.sh"))
        return
    fi
    . "$here/hooks.conf"
    # One text for the shell at the other end. What runs there does not end with us, but no later than we would be waited for.
    local words
    words=$(printf '%q ' timeout -k 5 "${PGHERD_TIMEOUT:-86400}" bash -s -- "$@")
    # shellcheck disable=SC2086  # options are words
    cat "$here/hooks.conf" "$here/on-node.sh" | ssh -T -o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=5 \
        -o ServerAliveCountMax=3 $SSH_OPTIONS "${SSH_USER:-postgres}@$host" "cd / && $words"
}
