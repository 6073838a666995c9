"""Pure functions of arrays and a mesh axis."""
