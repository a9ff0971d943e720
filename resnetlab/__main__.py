"""`python -m resnetlab` is the command `resnetlab`."""

import sys

from resnetlab.cli.main import main

sys.exit(main())
