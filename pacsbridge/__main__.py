"""``python -m pacsbridge`` is the same as ``pacsbridge``."""

import sys

from pacsbridge.cli import main

sys.exit(main())
