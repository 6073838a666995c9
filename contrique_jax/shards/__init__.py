"""More images than one run should hold: a fixed split into shards, each scored once and whole, by any number of processes."""
