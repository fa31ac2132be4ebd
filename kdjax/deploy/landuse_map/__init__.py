"""Maps of rasters by an exported student: `python -m kdjax.deploy.landuse_map ARTEFACT RASTER OUT`.

A window slides over the raster in steps of `--stride`; a cell of the map is one step wide. The probabilities of a cell
are the mean over the windows that cover it, weighted by how much of it each covers. Windows are read, classified and
written a few at a time, so that memory does not grow with the raster. Needs rasterio and onnxruntime, and no JAX.

OUT.tif              uint8, the index of the class; 255 where there is no data; with names and a colour table
OUT_confidence.tif   float32, the probability of that class, -1 where there is no data. A file of its own: all bands of
                     a GeoTIFF have one data type, and one with a colour table has one band
OUT_legend.png       names, colours and shares of the map
"""
