#!/bin/sh
# The pod hauberk-boot-guard: sh keep.sh keep|remove UNITS
#
# keep: the host's unit is in UNITS exactly as long as the node's agent keeps a file for it to load. remove: it is not.
# It talks to nobody. systemd reads the unit at the next boot; nothing is started now, as the agent has its policies.
set -u
verb=${1:?usage: keep.sh keep|remove UNITS} units=${2:?usage: keep.sh keep|remove UNITS}
state=${HAUBERK_STATE_DIR:-/var/lib/hauberk} files=$(dirname "$0")
script=hauberk-guard.sh unit=hauberk-guard.service
link=$units/sysinit.target.wants/$unit

place() { # a file, whole or not at all, whatever happens meanwhile
    cmp -s "$files/$1" "$units/$1" && return
    cp "$files/$1" "$units/.$1.new" && sync "$units/.$1.new" && mv "$units/.$1.new" "$units/$1" && echo "wrote $units/$1"
}

install() {
    place "$script" && place "$unit" || return
    [ -L "$link" ] || { mkdir -p "$(dirname "$link")" && ln -s "../$unit" "$link" && echo "enabled $unit"; }
}

remove() {
    [ -L "$link" ] || [ -e "$units/$unit" ] || [ -e "$units/$script" ] || return 0
    rm -f "$link" "$units/$unit" "$units/$script" "$units/.$unit.new" "$units/.$script.new" && echo "removed $unit"
    rmdir "$(dirname "$link")" 2>/dev/null || true
}

follow() {
    if [ "$verb" = keep ] && [ -e "$state/guard.xfrm" ]; then install; else remove; fi
}

trap 'follow; exit 0' TERM INT # what the agent did last counts when everything is uninstalled
while :; do
    follow
    sleep 1 &
    wait $!
done
