"""The real data and models of the paper's scale, fetched once and read from the disk from then on."""
