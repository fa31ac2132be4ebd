"""The page about a finished run, WORKDIR/report.html: figures, curves and notable images; and one on several runs."""
