"""The command line: `hauberk-ike initiate`, `respond`, `decode` and `cleanup`.

Exit codes: 0 all that was asked for came about; 1 something on this side is wrong, and a sentence on standard error
says what and what to do; 2 wrong usage; 3 an IKE SA, CHILD SA or command was refused or not answered; 4 an IKE SA was
up and its peer is gone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hauberk_diagnose.errors import Trouble
from hauberk_diagnose.wish import DEFAULT_ESP, DEFAULT_IKE, DEFAULT_LABEL, ChildWish, PeerWish, RunWish, read_wish

if TYPE_CHECKING:
    from hauberk_diagnose.configuration import Configuration
    from hauberk_diagnose.installation import Installation
    from hauberk_xfrm import Xfrm

_EXAMPLES: Final = """\
examples:
  hauberk-ike respond --local 10.0.0.2 --identity right.example \\
      --certificate right.pem --key right.key --ca roots.pem
                                  answer whoever proves an identity by these roots, and print what happens
  hauberk-ike initiate --local 10.0.0.1 --remote 10.0.0.2 --identity left.example --peer-identity right.example \\
      --certificate left.pem --key left.key --ca roots.pem --ts-local 10.1.0.0/16 --ts-remote 10.2.0.0/16 --install
                                  set up a tunnel in this host's kernel, until Ctrl-C
  hauberk-ike initiate ... --childless --command status --command quit -o json
                                  can these two agree at all? Try, print JSON lines, and end

  tcpdump -w - udp port 500 or udp port 4500 | hauberk-ike decode - --key-log keys
                                  what is being said, payload by payload, decrypted

exit codes: 0 it came about; 1 something here is wrong; 2 wrong usage; 3 refused or not answered; 4 the peer was lost
"""

_COMMANDS: Final = """\
commands, one a line on standard input, or as --command:
  initiate [PEER]              another IKE SA with a peer, and its children
  create-child LABEL [IKE_SA]  another CHILD SA of the configuration
  rekey-child [LABEL|SPI]      replace a CHILD SA
  rekey-ike [IKE_SA]           replace an IKE SA's keys
  reauthenticate [IKE_SA]      replace an IKE SA and its children by another one
  delete-child [LABEL|SPI]     delete a CHILD SA
  delete [IKE_SA]              delete an IKE SA and its children
  status                       all SAs, with --install their counters too
  wait SECONDS                 do nothing
  quit                         delete everything and end
Without an argument the newest is meant. Each is answered when it is done, and the next one waits for that, unless the
line ends in '&'.
"""

# The options that --config replaces.
_WISHES: Final = (
    "local", "remote", "identity", "peer_identity", "psk_file", "ppk_file", "ppk_id", "ppk_optional", "certificate",
    "key", "ca", "profile", "ml_dsa", "port", "remote_port", "nat_port", "ike", "esp", "mode", "ts_local", "ts_remote",
    "label", "childless", "children_apart", "encapsulation", "mobike", "rekey_seconds", "rekey_bytes",
    "rekey_packets", "ike_rekey_seconds", "initial_contact",
    "dpd_seconds", "keepalive_seconds", "fragment_size", "retransmit_tries", "retransmit_seconds",
    "cookie_threshold",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the program."""
    options = _parser().parse_args(arguments)
    try:
        code = options.command(options)
    except Trouble as trouble:
        print(f"hauberk-ike: {trouble}", file=sys.stderr)  # noqa: T201 - it is a command line
        sys.exit(1)
    except BrokenPipeError:
        # Nobody reads what we say any more. What is buffered must not be written at exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hauberk-ike",
        description="Speaks IKEv2 with any daemon, and says what happens.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hauberk-ike {version('hauberk')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    initiate = commands.add_parser(
        "initiate",
        help="set up IKE SAs and CHILD SAs with peers",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    initiate.add_argument(
        "--stay", action="store_true", help="go on when no IKE SA is left; 'initiate' on standard input begins another"
    )
    initiate.set_defaults(command=_run)
    respond = commands.add_parser(
        "respond",
        help="answer peers that set up IKE SAs",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    respond.set_defaults(command=_run, stay=True)
    decode = commands.add_parser("decode", help="print the IKE messages in a capture, payload by payload")
    decode.add_argument(
        "capture", metavar="FILE.pcap", help="pcap or pcapng, as tcpdump writes it; - is standard input"
    )
    decode.add_argument(
        "--key-log",
        type=Path,
        metavar="FILE",
        help="decrypt with these keys: what --key-log wrote, or another ikev2_decryption_table",
    )
    decode.add_argument(
        "--port", type=_port, action="append", default=[], metavar="PORT", help="look for IKE there as well"
    )
    decode.add_argument("--full", action="store_true", help="show long values whole, in text (in JSON they always are)")
    decode.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default text")
    decode.set_defaults(command=_decode)
    cleanup = commands.add_parser(
        "cleanup", help="remove the SAs and policies that killed runs with --install have left in this host's kernel"
    )
    cleanup.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default text")
    cleanup.set_defaults(command=_cleanup)
    for command, is_initiator in ((initiate, True), (respond, False)):
        command.set_defaults(parser=command, initiates=is_initiator)
        _add_ends(command, is_initiator=is_initiator)
        _add_child(command)
        _add_run(command)
    return parser


def _add_ends(command: argparse.ArgumentParser, *, is_initiator: bool) -> None:
    or_any = "" if is_initiator else ", default any"
    group = command.add_argument_group("who and where")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE.yaml",
        help="all of this and what to agree on from a file, with several peers and children; see the reference",
    )
    group.add_argument("--local", metavar="ADDRESS", help="our IP address")
    group.add_argument("--remote", metavar="ADDRESS", help=f"the peer's IP address{or_any}")
    group.add_argument(
        "--identity",
        metavar="ID",
        help="who we are: a host name, an address, a mail address, a distinguished name, or keyid:TEXT",
    )
    group.add_argument("--peer-identity", metavar="ID", help=f"who the peer must be{or_any}")
    group.add_argument(
        "--psk-file",
        type=Path,
        metavar="FILE",
        help="a pre-shared key for both sides (after 0x in hexadecimal), instead of certificates",
    )
    group.add_argument(
        "--ppk-file",
        type=Path,
        metavar="FILE",
        help="a post-quantum pre-shared key to mix in (RFC 8784), beside whatever proves who is who",
    )
    group.add_argument("--ppk-id", metavar="TEXT", help="what both ends call it")
    group.add_argument("--ppk-optional", action="store_true", default=None, help="go on without if the peer has none")
    group.add_argument("--certificate", type=Path, metavar="FILE", help="our certificate, then its intermediates")
    group.add_argument("--key", type=Path, metavar="FILE", help="our certificate's private key")
    group.add_argument("--ca", type=Path, metavar="FILE", help="the roots that we trust")
    group.add_argument(
        "--profile",
        choices=("rfc4945", "mesh"),
        help="what a peer's certificate has to be like: as gateways' are (the default), or as a mesh's nodes'",
    )
    group.add_argument(
        "--ml-dsa", action="store_true", default=None, help="let peers sign with ML-DSA-65, which is a draft still"
    )
    group.add_argument("--port", type=_port, metavar="PORT", help="UDP port here, default 500")
    group.add_argument("--remote-port", type=_port, metavar="PORT", help="UDP port of the peer, default that of --port")
    group.add_argument(
        "--nat-port", type=_port, metavar="PORT", help="UDP port of IKE and ESP with NATs, here and there, default 4500"
    )


def _add_child(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what to agree on")
    group.add_argument(
        "--ike",
        action="append",
        metavar="PROPOSAL",
        help=f"for the IKE SA, may be repeated, default {' and '.join(DEFAULT_IKE)}",
    )
    group.add_argument(
        "--esp",
        action="append",
        metavar="PROPOSAL",
        help=f"for the CHILD SA, may be repeated, default {' and '.join(DEFAULT_ESP)}",
    )
    group.add_argument("--mode", choices=("tunnel", "transport"), help="default tunnel")
    group.add_argument(
        "--ts-local",
        action="append",
        metavar="NET[PROTO/PORT]",
        help="our end of the traffic, such as 10.1.0.0/16 or '10.0.0.1[tcp/80]', may be repeated; default our address",
    )
    group.add_argument(
        "--ts-remote", action="append", metavar="NET[PROTO/PORT]", help="the peer's end; default its address"
    )
    group.add_argument("--label", help=f"the CHILD SA's name here, default {DEFAULT_LABEL}")
    group.add_argument("--childless", action="store_true", default=None, help="an IKE SA without CHILD SA (RFC 6023)")
    group.add_argument(
        "--children-apart",
        action="store_true",
        default=None,
        help="set up an IKE SA without CHILD SA, then the CHILD SA in an exchange of its own",
    )
    group.add_argument(
        "--encapsulation",
        choices=("auto", "always", "never"),
        help="ESP in UDP: where there is a NAT (auto, the default), always, or never",
    )
    group.add_argument("--mobike", action="store_true", default=None, help="as responder: let peers move (RFC 4555)")
    group.add_argument(
        "--initial-contact", action="store_true", default=None, help="tell the peer that we know no SA with it"
    )
    group.add_argument(
        "--rekey-seconds", type=_seconds, metavar="N", help="replace CHILD SAs after so long, default never"
    )
    group.add_argument(
        "--rekey-bytes", type=int, metavar="N", help="and after so much (with --install, whose kernel counts)"
    )
    group.add_argument("--rekey-packets", type=int, metavar="N", help="and after so many packets")
    group.add_argument("--ike-rekey-seconds", type=_seconds, metavar="N", help="and IKE SAs, default never")
    group.add_argument("--dpd-seconds", type=_seconds, metavar="N", help="default 10; 0: never ask")
    group.add_argument("--keepalive-seconds", type=_seconds, metavar="N", help="for NATs before us, default 20")
    group.add_argument(
        "--fragment-size",
        type=int,
        metavar="BYTES",
        help="longest IP packet; longer messages go in fragments (RFC 7383), default 1280; 0: never, either way",
    )
    group.add_argument(
        "--cookie-threshold",
        type=int,
        metavar="N",
        help="with so many half-open IKE SAs, ask whoever begins for a COOKIE first, default 32; 0: always",
    )
    group.add_argument("--retransmit-tries", type=int, metavar="N", help="times that a request is sent, default 5")
    group.add_argument(
        "--retransmit-seconds", type=_seconds, metavar="N", help="first wait, doubled each time, default 1"
    )


def _add_run(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("how to run")
    group.add_argument(
        "--install", action="store_true", help="put SAs and policies into this host's kernel while we run (root)"
    )
    group.add_argument(
        "--for", dest="seconds", type=_seconds, metavar="SECONDS", help="end after so long; default: until told to"
    )
    group.add_argument(
        "--command",
        dest="commands",
        action="append",
        default=[],
        metavar="COMMAND",
        help="carry this out once an IKE SA is up, may be repeated; the run ends after the last one",
    )
    group.add_argument(
        "--key-log",
        type=Path,
        metavar="FILE",
        help="append the IKE SAs' keys, for decode and for Wireshark (as ikev2_decryption_table). Whoever reads it can"
        " read all that these IKE SAs protect",
    )
    group.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default text")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _run(options: argparse.Namespace) -> int:
    from hauberk_diagnose.installation import NoInstallation
    from hauberk_diagnose.key_log_file import KeyLogFile
    from hauberk_diagnose.report import Reporter
    from hauberk_diagnose.runner import Plan, Runner
    from hauberk_diagnose.sockets import Sockets
    from hauberk_xfrm import Expiry, Xfrm

    configuration = _configuration(options)
    if configuration.wear and not options.install:
        raise Trouble(
            "the kernel counts bytes and packets: give --install, or neither --rekey-bytes nor --rekey-packets"
        )
    plan = Plan(
        initiates=options.initiates, stays=options.stay, commands=tuple(options.commands), seconds=options.seconds
    )
    reporter = Reporter(as_json=options.output == "json")
    with ExitStack() as stack:
        kernel = stack.enter_context(Xfrm())
        installation = _kernel_installation(kernel, configuration) if options.install else NoInstallation()
        expiries = stack.enter_context(closing(kernel.watch(Expiry))) if options.install else None
        key_log = stack.enter_context(closing(KeyLogFile(options.key_log))) if options.key_log else None
        bypass = options.install or os.geteuid() == 0
        sockets = Sockets(
            configuration.local_addresses,
            port=configuration.port,
            nat_port=configuration.settings.encapsulation_port if configuration.encapsulates else None,
            bypass=bypass,
            takes_esp=options.install,
        )
        stack.callback(sockets.close)
        return Runner(
            configuration,
            plan,
            sockets=sockets,
            installation=installation,
            reporter=reporter,
            key_log=key_log.write if key_log else None,
            expiries=expiries,
        ).run()


def _kernel_installation(kernel: Xfrm, configuration: Configuration) -> Installation:
    from hauberk_diagnose.claims import REQIDS, claim
    from hauberk_diagnose.installation import KernelInstallation
    from hauberk_xfrm import PermissionDenied, XfrmError

    try:
        abilities = kernel.abilities()
        in_use = {state.reqid for state in kernel.dump_states() if state.reqid in REQIDS}
    except PermissionDenied:
        raise Trouble("--install needs CAP_NET_ADMIN: run this as root, or without --install") from None
    except XfrmError as error:
        raise Trouble(f"{error}; run this without --install, or on a kernel with XFRM and ESP") from None
    return KernelInstallation(
        kernel, directions=abilities.sa_direction, claim=claim, reqids_in_use=in_use, wear=configuration.wear
    )


def _cleanup(options: argparse.Namespace) -> int:
    from hauberk_diagnose.claims import claim
    from hauberk_diagnose.cleanup import remove_leftovers
    from hauberk_diagnose.report import Reporter
    from hauberk_xfrm import PermissionDenied, Xfrm, XfrmError

    try:
        with Xfrm() as kernel:
            removed = remove_leftovers(kernel, claim)
    except PermissionDenied:
        raise Trouble("cleanup needs CAP_NET_ADMIN: run this as root") from None
    except XfrmError as error:
        raise Trouble(f"{error}; what is left can be seen with 'ip xfrm state' and 'ip xfrm policy'") from None
    text = f"removed {removed.states} states and {removed.policies} policies of runs that were killed"
    if removed.in_use:
        text += f"; left alone what runs that live use ({removed.in_use} request ids)"
    Reporter(as_json=options.output == "json").note(
        "Removed", text, states=removed.states, policies=removed.policies, in_use=removed.in_use
    )
    return 0


def _configuration(options: argparse.Namespace) -> Configuration:
    from hauberk_diagnose.configuration import build_configuration

    given = {name: getattr(options, name) for name in _WISHES if getattr(options, name) is not None}
    if options.config is None:
        return build_configuration(_wish(options, given), Path())
    if given:
        options.parser.error(f"--config says all of that: leave out {', '.join(map(_option, given))}")
    return build_configuration(read_wish(options.config), options.config.parent)


def _wish(options: argparse.Namespace, given: dict[str, Any]) -> RunWish:
    """The options as a wish: what was not given is left to its default."""
    needed = ("local", "identity", "remote", "peer_identity") if options.initiates else ("local", "identity")
    missing = [name for name in needed if name not in given]
    if missing:
        options.parser.error(f"{', '.join(map(_option, missing))} missing, or --config")
    child = ChildWish(
        **_those(
            given, "label", "mode", "esp", "ts_local", "ts_remote", "rekey_seconds", "rekey_bytes", "rekey_packets"
        )
    )
    peer = PeerWish(
        **_those(
            given,
            "local",
            "remote",
            "psk_file",
            "ppk_file",
            "ppk_id",
            "ppk_optional",
            "ike",
            "dpd_seconds",
            "initial_contact",
            "encapsulation",
            "mobike",
            "children_apart",
        ),
        **({"identity": given["peer_identity"]} if "peer_identity" in given else {}),
        **({"rekey_seconds": given["ike_rekey_seconds"]} if "ike_rekey_seconds" in given else {}),
        children=() if given.get("childless") else (child,),
    )
    return RunWish(
        **_those(
            given, "identity", "certificate", "key", "ca", "profile", "ml_dsa", "port", "nat_port", "remote_port",
            "retransmit_tries", "retransmit_seconds", "keepalive_seconds", "fragment_size",
            "cookie_threshold",
        ),
        peers=(peer,),
    )  # fmt: skip


def _those(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _decode(options: argparse.Namespace) -> int:
    from hauberk_diagnose.transcript import print_transcript

    return print_transcript(
        options.capture,
        key_log=options.key_log,
        ports=frozenset(options.port),
        as_json=options.output == "json",
        full=options.full,
    )
