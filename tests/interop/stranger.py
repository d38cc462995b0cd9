"""Somebody who begins an IKE SA and never goes on: what makes a daemon ask the next one for a COOKIE.

Used within the kernel that `program` runs in.
"""

from __future__ import annotations

import os
import socket

from hauberk_ike import IkeProposal
from hauberk_ike.key_exchange import generate_key_pair
from hauberk_ike.negotiation import offer_ike
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import FLAG_INITIATOR, NO_SPI
from hauberk_ike.wire.message import build_message
from hauberk_ike.wire.payloads import KeyExchangePayload, Nonce
from tests.interop.bed import Gateway, inside
from tests.interop.terms import Terms

ANSWER_SECONDS = 5.0


def knock(here: Gateway, there: Gateway, terms: Terms) -> None:
    """Leaves a half-open IKE SA at the other gateway's daemon. Raises AssertionError if it does not answer."""
    proposal = IkeProposal.parse(terms.ike)
    method = proposal.key_exchange[0]
    request = build_message(
        spi_i=os.urandom(8),
        spi_r=NO_SPI,
        exchange_type=ExchangeType.IKE_SA_INIT,
        flags=FLAG_INITIATOR,
        message_id=0,
        payloads=(
            offer_ike((proposal,)),
            KeyExchangePayload(method=method.transform_id, data=generate_key_pair(method, os.urandom).public),
            Nonce(data=os.urandom(32)),
        ),
    )
    with inside(here.name):
        sock = socket.socket(socket.AF_INET if terms.outer == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(ANSWER_SECONDS)
        sock.sendto(request, (str(there.seen[terms.outer]), 500))
        try:
            sock.recv(2048)
        except TimeoutError as error:
            raise AssertionError("a stranger's IKE_SA_INIT was not answered") from error
