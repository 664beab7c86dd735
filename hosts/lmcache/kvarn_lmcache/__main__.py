"""python -m kvarn_lmcache: the command kvarn-lmcache."""

import sys

from .command import main

sys.exit(main())
