# Runs a server that must not outlive the process holding the other end of this
# script's standard input. At end of file, which comes when that process closes
# it or dies, the server is sent SIGNAL until it is gone.
#
# usage: sh -c "$(cat leash.sh)" leash SIGNAL REMOVE COMMAND [ARGUMENT]...
#
# REMOVE is a directory to delete once the server has ended; may be empty.
# Descriptor 3 may be a lock; the server and this script hold it to their end.
signal=$1 remove=$2
shift 2

# Signals to the whole group or unit (a terminal, systemd) must not cut the leash.
# PostgreSQL installs handlers of its own.
trap '' HUP INT QUIT TERM

exec 9<&0 </dev/null
"$@" 9<&- &
server=$!
(
	while read -r _; do :; done <&9
	# Again and again: a server that is just starting may not listen yet.
	while kill -s "$signal" "$server"; do sleep 1; done
) 2>/dev/null 3<&- & # its sleep may outlast us, so not with the lock
watcher=$!
exec 9<&-

wait "$server"
status=$?
kill -KILL "$watcher" 2>/dev/null
[ -z "$remove" ] || rm -rf "$remove"
exit "$status"
