"""Photos in, larger photos out: any kind of picture, tile by tile, and the files around it."""
