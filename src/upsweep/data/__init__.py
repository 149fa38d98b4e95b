"""Files -> validated images -> cache -> patches, and the DataModules that hand them to a trainer."""
