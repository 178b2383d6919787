import sys

from dnm.cli import main

sys.exit(main())
