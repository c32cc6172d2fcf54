"""`python -m deploy.cluster`, which is what `make cluster` runs."""

import sys

from deploy.cluster.run import main

sys.exit(main())
