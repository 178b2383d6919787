from dnm.cli import main

raise SystemExit(main())
