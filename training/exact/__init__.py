"""Everything that all parties must compute alike, byte for byte: schema, S_0, objects, aggregate. numpy only."""
