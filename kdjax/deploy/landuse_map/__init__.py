"""Maps of rasters by an exported student.

`python -m kdjax.deploy.landuse_map ARTIFACT RASTER OUT.tif` or `… ARTIFACT INPUT… --output FOLDER`.

A window slides over the raster in steps of `--stride`; a cell of the map is one step wide. The probabilities of a cell
are the mean over the windows that cover it, weighted by how much of it each covers. Windows are read, classified and
written a few at a time, so that memory does not grow with the raster. Needs rasterio and onnxruntime, and no JAX.

inputs → raster → windows → layers, areas, legend, polygons → writer → outputs: from what is asked for to the files. In
`mapping` they make the map of one raster, in `many` those of several, by the processes of `workers`.
"""
