"""Makes two copies of one process draw different numbers, and know whose they are."""

import os
import sys
import tempfile


def reseed():
    """Gives every generator of this process that was seeded at its start a new seed from the
    kernel's, which has new entropy by now. Strings' hashes stay: they cannot be changed."""
    import random

    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)
    tempfile._name_sequence = None  # has a generator of its own
    # The machine's name is another one by now, too; what asked for it first has kept the template's.
    platform = sys.modules.get("platform")
    if platform is not None:
        platform._uname_cache = None
