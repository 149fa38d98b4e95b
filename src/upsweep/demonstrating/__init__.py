"""The page on which weights are tried: photos are enlarged, samples drawn. Only `page.py` knows Gradio."""
