//! Fuzz targets; each also runs as a plain test.
