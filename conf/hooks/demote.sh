#!/bin/bash
# demote_command = "hooks/demote.sh %d %h %p %D": stops the primary cleanly in a switch-over.
. "$(dirname "$0")/reach.sh"
run_on "$2" stop "$4" fast
