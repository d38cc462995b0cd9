"""Where the mesh CA lives: the Secret hauberk-ca in the operator's namespace, made once and never overwritten.

A new CA is created with a precondition (POST): of two operators one wins, and the other reads what the first has
written. Called by operator.py before anything is signed.
"""

from __future__ import annotations

import base64
import binascii
import logging
from datetime import datetime
from typing import Final

from hauberk_api.certificate import fingerprint
from hauberk_api.names import CA_SECRET
from hauberk_operator.ca import BadAuthorityError, SecretSigner, certificate_pem, create_root, key_pem, load_root
from hauberk_operator.facts import Json
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.writes import SECRET

_CERTIFICATE: Final = "tls.crt"
_KEY: Final = "tls.key"

log = logging.getLogger(__name__)


async def load_or_create(
    kube: Kube, *, namespace: str, mesh: str, lifetime_seconds: int, now: datetime
) -> SecretSigner:
    """The mesh CA. Raises KubeError, or BadAuthorityError when the Secret holds something else."""
    found = await kube.find(SECRET, CA_SECRET, namespace=namespace)
    if found is None:
        fresh = create_root(mesh=mesh, lifetime_seconds=lifetime_seconds, now=now)
        try:
            found = await kube.create(SECRET, _secret(fresh, namespace), namespace=namespace)
            log.info("made a mesh CA, %s", fingerprint(fresh.certificate))
        except KubeError as error:
            if not error.conflict:
                raise
            found = await kube.get(SECRET, CA_SECRET, namespace=namespace)
    try:
        return parse_secret(found, now=now)
    except BadAuthorityError as error:
        raise BadAuthorityError(
            f"Secret {namespace}/{CA_SECRET} is not a CA that can be used: {error}. "
            "Mend it, or delete it to have a new one made (all nodes then ask for new certificates)."
        ) from None


def parse_secret(secret: Json, *, now: datetime) -> SecretSigner:
    """The CA in a Secret of type kubernetes.io/tls. Raises BadAuthorityError."""
    data: Json = secret.get("data") or {}
    try:
        certificate, key = (base64.b64decode(data[name], validate=True) for name in (_CERTIFICATE, _KEY))
    except (KeyError, binascii.Error):
        raise BadAuthorityError(f"it does not have {_CERTIFICATE} and {_KEY}") from None
    return load_root(certificate, key, now=now)


def _secret(signer: SecretSigner, namespace: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": CA_SECRET, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "stringData": {_CERTIFICATE: certificate_pem(signer.certificate), _KEY: key_pem(signer)},
    }
