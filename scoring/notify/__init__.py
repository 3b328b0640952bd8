"""What a night has to tell becomes one mail to its owner: composed once, kept with the run, delivered when possible."""
