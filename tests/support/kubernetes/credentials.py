"""Who is who in a cluster: an authority of its own, certificates, and the files that clients log in by."""

from pathlib import Path
from typing import Any, Final

import trustme
import yaml

from tests.support.kubernetes.machine import HOST

API_URL: Final = f"https://{HOST}:26443"


class Credentials:
    """Certificates of one cluster, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._authority = trustme.CA()
        self.authority = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(self.authority)
        self.authority_key = folder / "ca.key"
        self._authority.private_key_pem.write_to_path(self.authority_key)

    def issue(self, name: str, *identities: str, group: str = "") -> tuple[Path, Path]:
        """Return the files of a certificate for *name* and of its key."""
        made = self._authority.issue_cert(
            *(identities or (name.replace(":", "-"),)), common_name=name, organization_name=group or None
        )
        certificate, key = (self._folder / f"{name.replace(':', '-')}.{kind}" for kind in ("crt", "key"))
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return certificate, key

    def kubeconfig(self, path: Path, name: str, *identities: str, group: str = "") -> Path:
        """Write the file by which *name* logs in."""
        certificate, key = self.issue(name, *identities, group=group)
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "trial", "cluster": {"server": API_URL, "certificate-authority": str(self.authority)}}
            ],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "trial", "context": {"cluster": "trial", "user": name}}],
            "current-context": "trial",
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path
