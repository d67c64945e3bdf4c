"""Models in the files of other programs, each read back and run before it is put in its place."""
