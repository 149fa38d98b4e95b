"""Why a trained network makes what it makes: what it looks at, what its upsampler does, where it fails."""
