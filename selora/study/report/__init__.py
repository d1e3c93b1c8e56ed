"""What a study found, from the files of its runs alone, without torch."""
