"""One file per framework behind one Protocol, chosen by MLflow flavor."""
