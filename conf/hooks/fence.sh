#!/bin/bash
# fence_command = "hooks/fence.sh %d %h %p %D": ends every process of server %d. Fails where its host cannot be reached: then nobody knows,
# and something that switches its power off has to take this one's place.
. "$(dirname "$0")/reach.sh"
run_on "$2" fence "$4"
