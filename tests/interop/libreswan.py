"""libreswan: pluto with an NSS database, driven by `whack`."""

from __future__ import annotations

import subprocess

from tests.interop.chroot import wait_until
from tests.interop.credentials import Identity
from tests.interop.daemon import Daemon
from tests.interop.terms import PPK, PPK_IDENTITY, PSK, Authentication, Side, Terms

_LOG = "run/pluto.log"
_NSS = "sql:/var/lib/ipsec/nss"
_CONNECTION = "hauberk"
_AUTHENTICATION = {
    Authentication.PSK: "secret",
    Authentication.P256: "ecdsa-sha2_256",
    Authentication.P384: "ecdsa-sha2_384",
    Authentication.P521: "ecdsa-sha2_512",
    Authentication.RSA: "rsa-sha2",
    Authentication.CHAIN: "ecdsa-sha2_256",
}
# ipsec.conf(5), ike= and esp=: the words of our spelling; AEADs of ESP want the integrity `null` before a group.
_ENCRYPTION = {
    "aes128gcm16": "aes_gcm_c128",
    "aes256gcm16": "aes_gcm_c256",
    "aes128ccm16": "aes_ccm_c128",
    "aes256ccm16": "aes_ccm_c256",
    "chacha20poly1305": "chacha20_poly1305",
    "aes128": "aes128",
    "aes256": "aes256",
}
_HASH = {
    "sha256": "sha2_256",
    "sha384": "sha2_384",
    "sha512": "sha2_512",
    "prfsha256": "sha2_256",
    "prfsha384": "sha2_384",
    "prfsha512": "sha2_512",
}
_GROUP = {
    "modp2048": "dh14",
    "modp3072": "dh15",
    "modp4096": "dh16",
    "ecp256": "dh19",
    "ecp384": "dh20",
    "ecp521": "dh21",
    "x25519": "dh31",
}


class Libreswan(Daemon):
    """pluto, without systemd and without its own start script."""

    sends_at_once = True

    _pluto: subprocess.Popen[bytes]

    def start(self, terms: Terms, here: Identity, there: Identity) -> None:
        for directory in ("var/lib/ipsec/nss", "run/pluto", "var/log"):
            (self.root.path / directory).mkdir(parents=True, exist_ok=True)
        self._write_credentials(terms, here, there)
        self.root.write("etc/ipsec.conf", self._configuration(terms, here, there))
        self._launch()

    def come_back(self) -> None:
        self._pluto.wait()
        for file in (_LOG, "run/pluto/pluto.ctl", "run/pluto/pluto.pid"):
            (self.root.path / file).unlink(missing_ok=True)
        self._launch()
        self.initiate()

    def _launch(self) -> None:
        self._pluto = self.root.spawn(
            *("/usr/libexec/ipsec/pluto", "--nofork", "--config", "/etc/ipsec.conf", "--logfile", f"/{_LOG}"),
            *("--nhelpers", "1", "--no-dnssec", "--rundir", "/run/pluto"),
            log="run/pluto.out",
        )
        wait_until((self.root.path / "run/pluto/pluto.ctl").exists, "pluto's control socket")
        wait_until(lambda: f'"{_CONNECTION}": added' in self.log(), "pluto has its connection")
        wait_until(lambda: "listening for IKE messages" in self.log(), "pluto listens")

    def initiate(self) -> None:
        # What it was told to bring up it would bring up anew when the peer deletes it.
        self._whack("--impair", "revival")
        self._whack("--initiate", "--name", _CONNECTION)

    def relent(self) -> None:
        self._whack("--unroute", "--name", _CONNECTION)

    def rekey_child(self) -> None:
        self._whack("--rekey-child", "--name", _CONNECTION, "--asynchronous")

    def rekey_ike(self) -> None:
        self._whack("--rekey-ike", "--name", _CONNECTION, "--asynchronous")

    def delete_child(self) -> None:
        # Without the word it waits for an end that never comes.
        self._whack("--down-child", "--name", _CONNECTION, "--asynchronous")

    def delete_ike(self) -> None:
        self._whack("--terminate", "--name", _CONNECTION)

    def status(self) -> str:
        return self._whack("--briefconnectionstatus")

    def log(self) -> str:
        return self.root.read(_LOG) + self.root.read("run/pluto.out")

    def signal(self, number: int) -> None:
        self._pluto.send_signal(number)

    def _whack(self, *arguments: str) -> str:
        return self.root.run("/usr/libexec/ipsec/whack", "--rundir", "/run/pluto", *arguments)

    def _write_credentials(self, terms: Terms, here: Identity, there: Identity) -> None:
        self.root.run("/usr/bin/certutil", "-N", "-d", _NSS, "--empty-password")
        secrets = f': PPKS "{PPK_IDENTITY}" "{PPK}"\n' if terms.ppk else ""
        if terms.authentication is Authentication.PSK:
            secrets += f'@{here.name} @{there.name} : PSK "{PSK}"\n'
        else:
            self.root.write("run/identity.p12", here.pkcs12(b"moving"))
            self.root.write("run/root.pem", here.root_pem)
            self.root.run("/usr/bin/certutil", "-A", "-d", _NSS, "-n", "root", "-t", "CT,,", "-i", "/run/root.pem")
            self.root.run("/usr/bin/pk12util", "-d", _NSS, "-i", "/run/identity.p12", "-W", "moving", "-K", "")
        self.root.write("etc/ipsec.secrets", secrets, mode=0o600)

    def _configuration(self, terms: Terms, here: Identity, there: Identity) -> str:
        side = terms.theirs
        certificate = terms.authentication is not Authentication.PSK
        lines = {
            "left": str(self.here.addresses[terms.outer]),
            "right": str(self.there.seen[terms.outer]),
            "leftid": f"@{here.name}",
            "rightid": f"@{there.name}",
            "authby": _AUTHENTICATION[terms.authentication],
            **({"leftcert": here.name, "leftsendcert": "always", "rightca": "%same"} if certificate else {}),
            **({"sendca": "all"} if terms.authentication is Authentication.CHAIN else {}),
            "type": "transport" if terms.transport else "tunnel",
            **self._selectors(terms, side),
            "ike": _ike(side.ike or terms.ike),
            "esp": _esp(side.esp or terms.esp),
            "esn": "yes" if "-esn" in (side.esp or terms.esp) else "no",
            "pfs": "yes" if _groups(side.esp or terms.esp) else "no",
            "auto": "add",
            "narrowing": "yes" if any((side.local, side.remote, terms.ours.local, terms.ours.remote)) else "no",
            "rekey": "no",
            "encapsulation": "yes" if side.encapsulate else "auto",
            "fragmentation": "force" if terms.fragment_size else "yes",
            "ppk": "insist" if terms.ppk else "no",
            "retransmit-interval": "500ms",
            "retransmit-timeout": "8s",
            "leftupdown": "%disabled",
            **({"dpddelay": f"{side.dpd_seconds}s"} if side.dpd_seconds else {}),
            "initial-contact": "yes",
        }
        setup = {"ddos-mode": "busy"} if terms.cookie else {}
        return "\n".join(
            (
                "config setup",
                *(f"    {name}={value}" for name, value in setup.items()),
                f"conn {_CONNECTION}",
                *(f"    {name}={value}" for name, value in lines.items()),
                "",
            )
        )

    def _selectors(self, terms: Terms, side: Side) -> dict[str, str]:
        if terms.transport:
            return {}
        local = side.local or tuple(self.here.networks[version] for version in terms.inner)
        remote = side.remote or tuple(self.there.networks[version] for version in terms.inner)
        return {"leftsubnet": ",".join(map(_subnet, local)), "rightsubnet": ",".join(map(_subnet, remote))}


def _subnet(selector: str) -> str:
    """10.244.1.0/24[icmp] as 10.244.1.0/24/icmp."""
    return selector.replace("[", "/").rstrip("]")


def _ike(proposal: str) -> str:
    words = proposal.split("-")
    encryption = "+".join(_ENCRYPTION[word] for word in words if word in _ENCRYPTION)
    hashes = "+".join(dict.fromkeys(_HASH[word] for word in words if word in _HASH))
    return f"{encryption}-{hashes}-{'+'.join(_groups(proposal))}"


def _esp(proposal: str) -> str:
    words = proposal.split("-")
    encryption = "+".join(_ENCRYPTION[word] for word in words if word in _ENCRYPTION)
    hashes = "+".join(_HASH[word] for word in words if word in _HASH) or "null"
    groups = "+".join(_groups(proposal))
    return f"{encryption}-{hashes}-{groups}" if groups else f"{encryption}-{hashes}"


def _groups(proposal: str) -> list[str]:
    return [_GROUP[word] for word in proposal.split("-") if word in _GROUP]
