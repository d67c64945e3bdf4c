"""The workbench: the engine behind a screen, built with Textual."""
