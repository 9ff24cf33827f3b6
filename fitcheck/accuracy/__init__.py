"""Commands that fit the model to published measurements and score it: part of the proof, not of the program."""
