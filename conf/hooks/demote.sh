#!/bin/bash
# demote_command = "hooks/demote.sh %d %h %p %D": stops the primary in a switch-over, in order; fails if it cannot be stopped so.
. "$(dirname "$0")/reach.sh"
run_on "$2" stop "$4"
