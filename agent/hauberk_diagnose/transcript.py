"""`decode`: a capture's IKE messages, printed as they are read."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from hauberk_diagnose.capture import CaptureError, read_frames
from hauberk_diagnose.credentials import read_bytes
from hauberk_diagnose.decoder import Counts, Decoder
from hauberk_diagnose.errors import Trouble
from hauberk_diagnose.frames import Datagrams
from hauberk_diagnose.key_table import KeyTable
from hauberk_diagnose.listing import list_message

STANDARD_INPUT: Final = "-"
_PROGRESS_SECONDS: Final = 2.0


def print_transcript(capture: str, *, key_log: Path | None, ports: frozenset[int], as_json: bool, full: bool) -> int:
    """Returns the exit code: 1 if the capture could not be read to its end. Raises Trouble for no capture at all."""
    keys = KeyTable(read_bytes(key_log).decode(errors="replace").splitlines() if key_log is not None else ())
    for problem in keys.problems:
        _say(problem)
    decoder = Decoder(keys, ports=ports)
    datagrams = Datagrams()
    frames = 0
    quiet_until = time.monotonic() + _PROGRESS_SECONDS
    damage: CaptureError | None = None
    with ExitStack() as stack:
        file = _open(capture, stack)
        try:
            for frame in read_frames(file):
                frames = frame.number
                udp = datagrams.read(frame)
                fields = decoder.read(frame, udp) if udp is not None else None
                if fields is not None:
                    text = json.dumps(fields) if as_json else list_message(fields, full=full) + "\n"
                    print(text, flush=capture == STANDARD_INPUT)  # noqa: T201 - it is a command line
                    quiet_until = time.monotonic() + _PROGRESS_SECONDS
                elif frame.number % 1024 == 0 and capture != STANDARD_INPUT and time.monotonic() >= quiet_until:
                    _say(f"{frame.number} frames read, {decoder.counts.messages} IKE messages found")
                    quiet_until = time.monotonic() + _PROGRESS_SECONDS
        except CaptureError as error:
            damage = error
        except OSError as error:
            raise Trouble(f"{capture}: {error.strerror or error}") from None
    if damage is not None and not frames:
        raise Trouble(f"{capture}: {damage}")
    if damage is not None:
        _say(f"{capture}: {damage}")
    _say(_summary(frames, decoder.counts, has_keys=key_log is not None))
    return 1 if damage is not None else 0


def _open(capture: str, stack: ExitStack) -> BinaryIO:
    if capture == STANDARD_INPUT:
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(capture).open("rb", buffering=1 << 20))
    except OSError as error:
        raise Trouble(f"{capture}: {error.strerror or error}; name a capture that can be read") from None


def _summary(frames: int, counts: Counts, *, has_keys: bool) -> str:
    parts = [f"{counts.messages} IKE messages in {frames} frames"]
    if counts.undecrypted:
        advice = "" if has_keys else " (a key log would open them: --key-log)"
        parts.append(f"{counts.undecrypted} not decrypted{advice}")
    if counts.esp:
        parts.append(f"{counts.esp} ESP packets in UDP")
    if counts.keepalives:
        parts.append(f"{counts.keepalives} NAT keepalives")
    return ", ".join(parts)


def _say(text: str) -> None:
    print(f"hauberk-ike: {text}", file=sys.stderr, flush=True)  # noqa: T201
