"""`python -m deploy.grafana`, which is what `make dashboards` runs."""

import sys

from deploy.grafana.command import main

sys.exit(main())
