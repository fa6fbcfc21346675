"""The starter catalogue of models and datasets, and how a catalogue becomes indexes."""
