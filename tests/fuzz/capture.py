"""The target `capture`: a capture file and a key log, of any bytes, are read to an end or to a sentence, and printed.

A script is the capture's bytes, and the key log's. `hauberk-ike decode` reads both from strangers.
"""

from __future__ import annotations

import contextlib
import json
from io import BytesIO

from hauberk_diagnose.capture import CaptureError, read_frames
from hauberk_diagnose.decoder import Decoder
from hauberk_diagnose.frames import Datagrams
from hauberk_diagnose.key_table import KeyTable
from hauberk_diagnose.listing import list_message
from tests.fuzz.script import Script


def run(data: bytes) -> None:
    """The target."""
    script = Script(data)
    capture, log = script.text(), script.text()
    decoder = Decoder(KeyTable(log.decode(errors="replace").splitlines()))
    datagrams = Datagrams()
    with contextlib.suppress(CaptureError):
        for frame in read_frames(BytesIO(capture)):
            udp = datagrams.read(frame)
            fields = decoder.read(frame, udp) if udp is not None else None
            if fields is not None:
                json.dumps(fields)
                list_message(fields, full=True).encode()
