#!/bin/sh
# Makes this machine {{.What}}, and keeps it so: run it as root, at the first boot or by hand.
# Run again, or after a reboot, it changes nothing. It holds a join token that is good until {{.Expires}}:
# keep it from people who may not add machines.
set -eu
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

masters='{{.Masters}}'
token='{{.Token}}'
bearer='{{.Bearer}}' # shows that one has the token; good for fetching the program, and for nothing else
ca='{{.CA}}' # SHA-256 of the site's CA certificate
patience={{.Patience}} # seconds, for the network and the masters
dir='{{.Dir}}'
program=/usr/local/bin/millrace

say() { echo "millrace user data: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

[ "$(id -u)" = 0 ] || fail 'it has to run as root'

case $(uname -m) in
{{- range .Kinds}}
{{.Uname}}) arch={{.Arch}} sum={{.SHA256}} ;;
{{- end}}
*) fail "the masters have no program for $(uname -m): put one into binaries/linux-ARCH in the folder of each, and print this script anew" ;;
esac

# is FILE: it is the program that this script was made for.
is() {
	[ -f "$1" ] && echo "$sum  $1" | sha256sum -c >/dev/null 2>&1
}

# fetch URL FILE. Whom one speaks to cannot be checked here yet: the program is, by its hash, and the program then checks the CA.
fetch() {
	if command -v curl >/dev/null 2>&1; then
		printf 'header = "Authorization: Bearer %s"\n' "$bearer" |
			curl -K - --insecure --silent --show-error --fail --connect-timeout 5 --max-time 600 -o "$2" "$1"
	elif command -v wget >/dev/null 2>&1; then
		case $(wget --version 2>&1) in
		*'GNU Wget'*) wget -q -T 20 -t 1 --no-check-certificate --header "Authorization: Bearer $bearer" -O "$2" "$1" ;;
		*) wget -q --no-check-certificate --header "Authorization: Bearer $bearer" -O "$2" "$1" ;; # busybox: some end by themselves at -T
		esac
	else
		fail 'neither curl nor wget is here'
	fi
}

# A machine that is a node already has its program: it may be a later one by now.
ready() {
	is "$program" || { [ -x "$program" ] && { [ -f "$dir/worker/node.json" ] || [ -f "$dir/master/node.json" ]; }; }
}

# A file that was half fetched, or is not what it should be, is never run.
waited=0
while ! ready; do
	(umask 022 && mkdir -p /usr/local/bin)
	for master in $masters; do
		if fetch "$master/v1/binaries/linux-$arch" "$program.new.$$" && is "$program.new.$$"; then
			chmod 755 "$program.new.$$"
			mv -f "$program.new.$$" "$program"
			say "fetched the program from $master"
			break
		fi
		if [ -s "$program.new.$$" ]; then
			say "what $master has is not the program that this script was made for"
		fi
		rm -f "$program.new.$$"
	done
	ready && break
	[ "$waited" -lt "$patience" ] || fail "no master handed out the program within $patience s: $masters"
	[ "$waited" -gt 0 ] || say "waiting for the network and the masters: $masters"
	sleep 5
	waited=$((waited + 5))
done

# The token goes to the program by a file: arguments are seen by everybody on a machine.
mkdir -p /etc/millrace
printf '%s\n' "$token" >"/etc/millrace/token.$$"
trap 'rm -f "/etc/millrace/token.$$"' EXIT
# shellcheck disable=SC2086 # a word for each master
"$program" join --ca-sha256 "$ca" --wait "${patience}s" --dir "$dir"{{with .TaskUser}} --task-user {{.}}{{end}} $masters "@/etc/millrace/token.$$"
