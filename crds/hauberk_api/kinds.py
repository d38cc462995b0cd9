"""Names of the API group and its kinds, as the API server knows them. Used by operator, agent and tests."""

from __future__ import annotations

from typing import Final

GROUP: Final = "hauberk.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

TUNNEL_KIND: Final = "IPsecTunnel"
MESH_KIND: Final = "IPsecMesh"
NODE_KIND: Final = "IPsecNode"
REPORT_KIND: Final = "IPsecReport"

TUNNELS: Final = "ipsectunnels"
MESHES: Final = "ipsecmeshes"
NODES: Final = "ipsecnodes"
REPORTS: Final = "ipsecreports"

MESH_NAME: Final = "default"
"""The one IPsecMesh of a cluster; the CRD admits no other name."""
