"""The stage: the page's one custom component, with its scripts and style sheets."""
