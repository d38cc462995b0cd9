"""strongSwan, driven by `swanctl`: charon-systemd without systemd, its settings by STRONGSWAN_CONF."""

from __future__ import annotations

import subprocess

from tests.interop.chroot import wait_until
from tests.interop.credentials import Identity
from tests.interop.daemon import Daemon
from tests.interop.terms import CHILD, PPK, PPK_IDENTITY, PSK, Authentication, Side, Terms

_LOG = "run/charon.log"
_CONNECTION = "hauberk"
# Only what IKE needs: each of the other forty plugins costs a start some milliseconds.
_PLUGINS = (
    "random nonce pem pkcs1 pkcs8 x509 pubkey constraints revocation openssl kdf drbg hmac sha1 sha2 aes gcm ccm "
    "chapoly curve25519 gmp mgf1 kernel-netlink socket-default vici updown"
)
_SETTINGS = """
charon-systemd {{
  load = {plugins}
  # Routes are the bed's; the pods are not addresses of the gateway.
  install_routes = no
  rsa_pss = yes
  retransmit_timeout = 0.5
  retransmit_base = 1.5
  retransmit_tries = 3
  make_before_break = yes
  delete_rekeyed_delay = 1
  {settings}
  journal {{ default = -1 }}
  filelog {{
    log {{
      path = /{log}
      default = 1
      ike = 2
      cfg = 2
      knl = 2
      time_format = %H:%M:%S
      flush_line = yes
    }}
  }}
}}
"""
_AUTHENTICATION = {
    Authentication.PSK: "psk",
    Authentication.P256: "ecdsa-sha256-ecdsa-sha384-ike:ecdsa-sha256",
    Authentication.P384: "ecdsa-sha384-ike:ecdsa-sha384",
    Authentication.P521: "ecdsa-sha384-ike:ecdsa-sha512",
    Authentication.RSA: "pubkey-ike:rsa/pss-sha256-sha384-sha512",
    Authentication.CHAIN: "ecdsa-sha256-ecdsa-sha384-ike:ecdsa-sha256",
}


class StrongSwan(Daemon):
    """6.0 or 6.1, as the tree has it."""

    _charon: subprocess.Popen[bytes]

    def start(self, terms: Terms, here: Identity, there: Identity) -> None:
        settings: list[str] = []
        if terms.fragment_size:
            settings.append(f"fragment_size = {terms.fragment_size}")
        if terms.cookie:
            settings += ("cookie_threshold = 1", "cookie_threshold_ip = 1")
        self.root.write(
            "etc/strongswan.conf",
            _SETTINGS.format(plugins=_PLUGINS, settings="\n  ".join(settings), log=_LOG),
        )
        self._write_credentials(terms, here)
        self.root.write("etc/swanctl/swanctl.conf", self._configuration(terms, here, there))
        self._launch()

    def come_back(self) -> None:
        self._charon.wait()
        (self.root.path / "run/charon.vici").unlink()
        self._launch()
        self.initiate()

    def _launch(self) -> None:
        self._charon = self.root.spawn("/usr/sbin/charon-systemd", log="run/charon.out")
        wait_until((self.root.path / "run/charon.vici").exists, "charon's VICI socket")
        self._swanctl("--load-all", "--noprompt")

    def initiate(self) -> None:
        self._swanctl("--initiate", "--child", CHILD, "--timeout", "20")

    def rekey_child(self) -> None:
        self._swanctl("--rekey", "--child", CHILD)

    def rekey_ike(self) -> None:
        self._swanctl("--rekey", "--ike", _CONNECTION)

    def reauthenticate(self) -> None:
        self._swanctl("--rekey", "--ike", _CONNECTION, "--reauth")

    def delete_child(self) -> None:
        self._swanctl("--terminate", "--child", CHILD, "--timeout", "10")

    def delete_ike(self) -> None:
        self._swanctl("--terminate", "--ike", _CONNECTION, "--timeout", "10")

    def status(self) -> str:
        return self._swanctl("--list-sas")

    def log(self) -> str:
        return self.root.read(_LOG) + self.root.read("run/charon.out")

    def signal(self, number: int) -> None:
        self._charon.send_signal(number)

    def _swanctl(self, *arguments: str) -> str:
        return self.root.run("/usr/sbin/swanctl", *arguments)

    def _write_credentials(self, terms: Terms, here: Identity) -> None:
        if terms.authentication is Authentication.PSK:
            return
        self.root.write("etc/swanctl/private/key.pem", here.key_pem, mode=0o600)
        self.root.write("etc/swanctl/x509/leaf.pem", here.leaf_pem)
        self.root.write("etc/swanctl/x509ca/root.pem", here.root_pem)
        for number, certificate in enumerate(here.intermediates_pem):
            self.root.write(f"etc/swanctl/x509/intermediate{number}.pem", certificate)

    def _configuration(self, terms: Terms, here: Identity, there: Identity) -> str:
        side = terms.theirs if self.here.name == "right" else terms.ours
        auth = _AUTHENTICATION[terms.authentication]
        local = "psk" if auth == "psk" else "pubkey"
        ppk = f"ppk_id = {PPK_IDENTITY}\n    ppk_required = yes" if terms.ppk else ""
        certificates = "" if auth == "psk" else "certs = leaf.pem"
        return f"""
connections {{
  {_CONNECTION} {{
    version = 2
    local_addrs = {"%any" if terms.mobike else self.here.addresses[terms.outer]}
    remote_addrs = {self.there.seen[terms.outer]}
    proposals = {side.ike or terms.ike}
    mobike = {_yes(terms.mobike)}
    encap = {_yes(side.encapsulate)}
    fragmentation = {"force" if terms.fragment_size else "yes"}
    childless = {"force" if terms.childless else "allow"}
    rekey_time = {side.rekey_ike_seconds}s
    over_time = 60s
    dpd_delay = {side.dpd_seconds}s
    {ppk}
    local {{
      auth = {local}
      {certificates}
      id = {here.name}
    }}
    remote {{
      auth = {auth}
      id = {there.name}
    }}
    children {{
      {CHILD} {{
{self._child(terms, side)}
      }}
    }}
  }}
}}
secrets {{
  ike {{
    id-1 = {here.name}
    id-2 = {there.name}
    secret = "{PSK}"
  }}
  ppk {{
    id = {PPK_IDENTITY}
    secret = "{PPK}"
  }}
}}
"""

    def _child(self, terms: Terms, side: Side) -> str:
        local = side.local or tuple(self.here.networks[version] for version in terms.inner)
        remote = side.remote or tuple(self.there.networks[version] for version in terms.inner)
        if terms.transport:
            local = remote = ("dynamic",)
        lines = {
            "local_ts": ", ".join(local),
            "remote_ts": ", ".join(remote),
            "mode": "transport" if terms.transport else "tunnel",
            "esp_proposals": side.esp or terms.esp,
            "rekey_time": f"{side.rekey_child_seconds}s",
            "dpd_action": "clear",
        }
        return "\n".join(f"        {name} = {value}" for name, value in lines.items())


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
