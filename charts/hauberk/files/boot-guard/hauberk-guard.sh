#!/bin/sh
# Hauberk's boot guard. A unit of the host runs it before there is any network: sh hauberk-guard.sh DIRECTORY
#
# DIRECTORY/guard.xfrm is kept by the node's agent. Each line is the arguments of one `ip xfrm policy add`; whatever else is
# there is passed over, so that whoever may write the file can't have the host run another command. A policy that lies in the
# kernel already stays as it is.
#
# DIRECTORY/guard.loaded is for the agent's report: the boot's id, how many policies there were to load, how many are there.
set -uf
state=${1:?usage: hauberk-guard.sh DIRECTORY}
file=$state/guard.xfrm mark=$state/guard.loaded
network='[0-9a-f.:]+/[0-9]+'
line="src $network dst $network( proto [0-9]+)?( sport [0-9]+)?( dport [0-9]+)?( type [0-9]+)?"
line="$line dir (in|out|fwd) priority [0-9]+ action (allow|block)"
ours='priority 120(79|80)[0-9]{5} ' # hauberk_agent/ownership.py has the band

read -r boot </proc/sys/kernel/random/boot_id
case $(cat "$mark" 2>/dev/null) in
"$boot "*)
    echo "hauberk-guard: it has run at this boot"
    exit 0
    ;;
esac

additions() { sed -nE "s#^($line)\$#xfrm policy add \\1#p" "$file"; }

wanted=0 loaded=0
if [ -f "$file" ]; then
    wanted=$(sed -n '1s/^# policies: \([0-9]\{1,7\}\);.*/\1/p' "$file")
    wanted=${wanted:-$(($(additions | grep -c .) + 1))}
    # A batch ends with the first policy that is refused: then each gets a turn of its own.
    additions | ip -batch - || additions | while read -r words; do
        # shellcheck disable=SC2086
        ip $words 2>/dev/null
    done
    loaded=$(ip xfrm policy | grep -cE "$ours")
fi
mkdir -p -m 700 "$state"
echo "$boot $wanted $loaded" >"$mark.new" && mv "$mark.new" "$mark"
echo "hauberk-guard: $loaded of $wanted policies are loaded"
[ "$loaded" -ge "$wanted" ]
