#!/bin/bash
# failover_command = "hooks/failover.sh %d %h %p %D %m %H %r %R %P": with promote = "command" it promotes server %m in place of a dead
# primary. It is run for standbys that are lost as well, and after promotions by pgherd itself: there is nothing to do then.
. "$(dirname "$0")/reach.sh"
node=$1 new=$5 new_host=$6 new_data=$8 old_primary=$9
[ "$node" = "$old_primary" ] && [ "$new" != -1 ] && [ "$new" != "$old_primary" ] || exit 0
run_on "$new_host" promote "$new_data"
