"""What all tests share: shapes written in signatures are checked at run time.

In: nothing. Out: modules with jaxtyping annotations whose calls raise on a wrong shape or type.
"""

from jaxtyping import install_import_hook

install_import_hook(["xwam.codecs.codec", "xwam.codecs.patch_dct", "xwam.network.transformer"], "beartype.beartype")

collect_ignore = ["doubles/lerobot_package.py", "doubles/openpi_partner.py", "doubles/xpolicylab_partner.py"]
collect_ignore_glob = ["bench/*_peers/*"]
"""These run in interpreters that have packages of others; pytest would import them to look for examples."""
