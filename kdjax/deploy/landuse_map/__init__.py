"""Makes land-use maps of rasters with an exported student.

`python -m kdjax.deploy.landuse_map ARTIFACT RASTER OUT.tif` or `… ARTIFACT INPUT… --output FOLDER`.

A window slides over the raster in steps of `--stride`; a cell of the map is one step wide. The probabilities of a cell
are the mean over the windows that cover it, weighted by the share of the cell that each one covers. Windows are read,
classified and written a few at a time, so memory does not grow with the raster. Needs rasterio and onnxruntime, but not
JAX.

Data flow through the modules in this order, from the arguments to the files: inputs → raster → windows → layers, areas,
legend, polygons → writer → outputs. `mapping` combines them for one raster, `many` for several, which the processes of
`workers` share.
"""
