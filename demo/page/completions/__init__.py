"""The engine behind OpenAI's chat completions API, so that other programs' harnesses can measure capping."""
