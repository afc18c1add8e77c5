# Makes a database cluster unless it is there, then becomes its server.
#
# usage: sh -c "$(cat cluster.sh)" cluster BIN DATA PWFILE INITFLAG [SETTING]...
#
# DATA appears only when it is complete, whenever this is interrupted.
bin=$1 data=$2 pwfile=$3 initflag=$4
shift 4

if [ ! -e "$data" ]; then
	rm -rf "$data.new"
	"$bin/initdb" -D "$data.new" --username=llmproxy --pwfile="$pwfile" \
		--auth=scram-sha-256 --encoding=UTF8 --locale=C --no-instructions $initflag || exit 1
	mv "$data.new" "$data" || exit 1
fi
rm -f "$pwfile"
exec "$bin/postgres" -D "$data" "$@"
