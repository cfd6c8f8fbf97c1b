"""The pen: pages, panels, charts and colours that all figures share."""
