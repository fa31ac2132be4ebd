"""One page about a finished run, WORKDIR/report.html: figures, curves, and the images worth a look."""
