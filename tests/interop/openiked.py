"""OpenIKED, driven by its configuration and `ikectl`.

It has no command to rekey, so a case lets a lifetime run out, and none to initiate: a policy that is `active` is
initiated when it is loaded.
"""

from __future__ import annotations

import subprocess

from cryptography.hazmat.primitives import serialization

from tests.interop.bed import Gateway, IpAddress
from tests.interop.chroot import wait_until
from tests.interop.credentials import Identity
from tests.interop.daemon import Daemon
from tests.interop.terms import PSK, Authentication, Terms

_LOG = "run/iked.log"
# iked.conf(5), CRYPTO TRANSFORMS.
_WORDS = {
    "aes128gcm16": "enc aes-128-gcm",
    "aes256gcm16": "enc aes-256-gcm",
    "chacha20poly1305": "enc chacha20-poly1305",
    "aes128": "enc aes-128",
    "aes256": "enc aes-256",
    "sha256": "auth hmac-sha2-256",
    "sha384": "auth hmac-sha2-384",
    "sha512": "auth hmac-sha2-512",
    "prfsha256": "prf hmac-sha2-256",
    "prfsha384": "prf hmac-sha2-384",
    "prfsha512": "prf hmac-sha2-512",
    "modp2048": "group modp2048",
    "modp3072": "group modp3072",
    "modp4096": "group modp4096",
    "ecp256": "group ecp256",
    "ecp384": "group ecp384",
    "ecp521": "group ecp521",
    "x25519": "group curve25519",
    "esn": "esn",
    "noesn": "noesn",
}
_AUTHENTICATION = {
    Authentication.PSK: f'psk "{PSK}"',
    Authentication.P256: "ecdsa256",
    Authentication.P384: "ecdsa384",
    Authentication.P521: "ecdsa521",
    Authentication.RSA: "rfc7427",
    Authentication.CHAIN: "ecdsa256",
}


class OpenIked(Daemon):
    """iked and its four processes."""

    # iked/ikev2.c: ikev2_childsa_enable follows upon ikev2_msg_send_encrypt in ikev2_resp_ike_auth and
    # ikev2_resp_create_child_sa; in ikev2_init_create_child_sa ikev2_childsa_delete does upon ikev2_send_ike_e.
    sends_at_once = True
    is_hasty = True
    _iked: subprocess.Popen[bytes]
    _terms: Terms
    _identities: tuple[Identity, Identity]

    def start(self, terms: Terms, here: Identity, there: Identity) -> None:
        self._terms, self._identities = terms, (here, there)
        for directory in ("etc/iked/pubkeys/fqdn", "run/openiked", "var/empty"):
            (self.root.path / directory).mkdir(parents=True, exist_ok=True)
        self._write_credentials(terms, here)
        self._write_configuration("passive")
        self._iked = self.root.spawn("/usr/sbin/iked", "-d", "-v", "-v", "-f", "/etc/iked.conf", log=_LOG)
        wait_until((self.root.path / "run/iked.sock").exists, "iked's control socket")
        wait_until(lambda: "ikev2_reset_alive_timer" in self.log() or "config_getpolicy" in self.log(), "its policy")

    def initiate(self) -> None:
        self._write_configuration("active")
        self._ikectl("reload")
        wait_until(lambda: "established peer" in self.log(), "iked's IKE SA")

    def rekey_child(self) -> None:
        """Its lifetime, which the case makes short, does it."""

    def rekey_ike(self) -> None:
        """Its lifetime, which the case makes short, does it."""

    def delete_child(self) -> None:
        raise AssertionError("ikectl has no command for that")

    def delete_ike(self) -> None:
        self._ikectl("reset", "id", f"FQDN/{self._identities[1].name}")

    def status(self) -> str:
        return self._ikectl("show", "sa")

    def log(self) -> str:
        return self.root.read(_LOG)

    def signal(self, number: int) -> None:
        self._iked.send_signal(number)

    def _ikectl(self, *arguments: str) -> str:
        return self.root.run("/usr/sbin/ikectl", *arguments)

    def _write_credentials(self, terms: Terms, here: Identity) -> None:
        # It wants a key of its own even where only a secret counts.
        public = here.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.root.write("etc/iked/private/local.key", here.key_pem, mode=0o600)
        self.root.write("etc/iked/local.pub", public)
        if terms.authentication is not Authentication.PSK:
            self.root.write("etc/iked/ca/root.crt", here.root_pem)
            self.root.write(f"etc/iked/certs/{here.name}.crt", here.leaf_pem)
            for number, certificate in enumerate(here.intermediates_pem):
                self.root.write(f"etc/iked/certs/intermediate{number}.crt", certificate)

    def _write_configuration(self, mode: str) -> None:
        terms, (here, there), side = self._terms, self._identities, self._terms.theirs
        flows = [
            f"from {local} to {remote}"
            for local, remote in zip(
                _ends(self.here, terms, self.here.addresses), _ends(self.there, terms, self.there.seen), strict=True
            )
        ]
        if side.local or side.remote:
            flows = [
                f"from {one.partition('[')[0]} to {other.partition('[')[0]}"
                for one, other in zip(side.local, side.remote, strict=True)
            ]
        protocol = _protocol((*side.local, *side.remote))
        policy = [
            f'ikev2 "hauberk" {mode} {"transport" if terms.transport else "tunnel"}',
            "natt" if side.encapsulate else "",
            f"esp {'inet6' if terms.outer == 6 else 'inet'}",
            f"proto {protocol}" if protocol else "",
            *flows,
            f"local {self.here.addresses[terms.outer]} peer {self.there.seen[terms.outer]}",
            f"ikesa {_transforms(side.ike or terms.ike)}",
            f"childsa {_transforms(_with_esn(side.esp or terms.esp))}",
            f"srcid {here.name} dstid {there.name}",
            f"ikelifetime {side.rekey_ike_seconds}",
            f"lifetime {side.rekey_child_seconds or 10800}",
            _AUTHENTICATION[terms.authentication],
        ]
        settings = [
            f"set {'fragmentation' if terms.authentication is Authentication.CHAIN else 'nofragmentation'}",
            f"set {'mobike' if terms.mobike else 'nomobike'}",
            f"set dpd_check_interval {side.dpd_seconds}",
            # It knows no INITIAL_CONTACT: this has it drop a peer's former IKE SA.
            "set enforcesingleikesa",
        ]
        text = "\n".join((*settings, " \\\n    ".join(word for word in policy if word), ""))
        self.root.write("etc/iked.conf", text, mode=0o600)


def _ends(gateway: Gateway, terms: Terms, addresses: dict[int, IpAddress]) -> list[str]:
    if terms.transport:
        return [str(addresses[terms.outer])]
    return [gateway.networks[version] for version in terms.inner]


def _protocol(selectors: tuple[str, ...]) -> str:
    """The protocol that selectors such as 10.244.1.0/24[icmp] have in common, if any."""
    return next((selector.partition("[")[2].rstrip("]") for selector in selectors if "[" in selector), "")


def _transforms(proposal: str) -> str:
    return " ".join(_WORDS[word] for word in proposal.split("-"))


def _with_esn(proposal: str) -> str:
    """Where nothing is said, iked takes ESN alone, and the others none."""
    return proposal if "esn" in proposal else f"{proposal}-noesn"
